"""How long a request would wait, predicted from what runs on threads have cost by the clock on the wall.

`Servable` asks before it takes a request while runs are under way, and refuses one that would wait longer than it may.
A prediction that has become wrong cures itself: an idle model takes whatever comes, and learns from that run.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelpier_server.scheduler.costs import estimate

_WEIGHT_UP, _WEIGHT_DOWN = 0.25, 0.5
"""To refuse what could have been answered is worse than a wait."""
_GROWTH = 2.0
"""A run of twice the elements takes twice the time, as far as nobody knows better."""


@dataclass(frozen=True)
class Ahead:
    """What is to be run before a request, in input elements."""

    waiting: int
    per_run: int
    """That one run would hold."""
    running: tuple[tuple[int, float], ...] = ()
    """(elements, seconds since its start) of each run under way."""


class Forecast:
    """Only the event loop touches it once the model serves."""

    def __init__(self) -> None:
        self._costs: dict[int, float] = {}
        self.longest = 0.0
        """Seconds of the longest run so far."""

    def learn(self, elements: int, seconds: float) -> None:
        """A measurement of warm-up, of an idle process."""
        size = elements.bit_length()
        self._costs[size] = min(seconds, self._costs.get(size, seconds))
        self.longest = max(self.longest, seconds)

    def ran(self, elements: int, seconds: float) -> None:
        size = elements.bit_length()
        known = self._costs.get(size, seconds)
        self._costs[size] = known + (_WEIGHT_UP if seconds > known else _WEIGHT_DOWN) * (seconds - known)
        self.longest = max(self.longest, seconds)

    def wait(self, ahead: Ahead, instances: int) -> float:
        """Seconds until a request's own run would start; 0 while nothing is known."""
        if not self._costs:
            return 0.0
        left = sum(max(0.0, self._cost(elements) - since) for elements, since in ahead.running)
        if ahead.waiting and ahead.per_run:
            left += self._cost(ahead.per_run) * ahead.waiting / ahead.per_run
        return left / instances

    def _cost(self, elements: int) -> float:
        return estimate(self._costs, elements.bit_length(), _GROWTH)
