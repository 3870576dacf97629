"""Where a run takes place: on the event loop or on a runner thread.

A hop to a thread and back costs 40 to 100 us, so that a run shorter than that is cheaper on the loop; a longer one
would keep everybody else waiting. The cost of a run is learned per size class (power of two of input elements), from
warm-up on.
"""

from __future__ import annotations

from modelpier_server.scheduler.costs import estimate

LOOP_LIMIT = 80e-6
"""Seconds: measured hops were 42 us (one per batch) to 67 us, a busy loop's latency target is a millisecond."""
FAR_BEYOND = 50e-3
"""Seconds that no run takes which was expected to be short, unless its time depends on the values of its inputs."""
STRIKES = 3
_WEIGHT = 0.2
_WINDOW = 16


class Placement:
    """Estimates of run times in seconds. Only the event loop touches it once the model serves."""

    def __init__(self) -> None:
        self._costs: dict[int, float] = {}
        self._limit = LOOP_LIMIT
        self._strikes = 0
        self._best: dict[int, tuple[float, int]] = {}

    def learn(self, elements: int, seconds: float) -> None:
        """A measurement of warm-up."""
        size = elements.bit_length()
        self._costs[size] = min(seconds, self._costs.get(size, seconds))

    def on_loop(self, elements: int) -> bool:
        return self._estimate(elements.bit_length()) < self._limit

    def ran_on_loop(self, elements: int, seconds: float) -> None:
        """Moves the estimate; one outlier (the kernel ran somebody else) must not move it far, a new level within a
        few runs.
        """
        if seconds > FAR_BEYOND:
            self._strikes += 1
            if self._strikes >= STRIKES:
                self.leave_loop()
        size = elements.bit_length()
        known = self._costs.get(size, seconds)
        self._costs[size] = known + _WEIGHT * (min(seconds, 2 * known + LOOP_LIMIT / 4) - known)

    def leave_loop(self) -> None:
        """For good: what runs cost cannot be told from their size."""
        self._limit = 0.0

    def ran_on_thread(self, elements: int, seconds: float) -> None:
        """On threads the wait for the GIL is part of every measurement: the shortest of a window counts."""
        size = elements.bit_length()
        best, count = self._best.get(size, (seconds, 0))
        best = min(best, seconds)
        if count + 1 < _WINDOW:
            self._best[size] = (best, count + 1)
            return
        del self._best[size]
        self._costs[size] = best

    def _estimate(self, size: int) -> float:
        """Beyond what is known a run is taken to be quadratic: the loop must not be blocked for a hope."""
        known = self._costs.get(size)
        return known if known is not None else estimate(self._costs, size, 4.0)
