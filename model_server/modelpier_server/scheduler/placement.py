"""Where a run takes place: on the event loop or on a runner thread.

A hop to a thread and back takes 40 to 70 us where nothing else happens. Beside a busy loop it costs several times that:
the thread needs the interpreter lock before the run and after it, and whoever gives the lock away waits for it again.
A run that is shorter than all this is cheaper on the loop, where a longer one would keep everybody else waiting. The
cost of a run is learned per size class (power of two of input elements), from warm-up on.
"""

from __future__ import annotations

from modelpier_server.scheduler.costs import estimate

LOOP_LIMIT = 400e-6
"""Seconds. Measured at 64 requests at once on two cores: runs of up to 150 us alone and 440 us in batches gave 1.2 to 2
times the requests per second on the loop, for 0.5 to 0.8 of the CPU. A loop's latency target is a millisecond."""
_LEEWAY = 20e-6
"""Seconds by which the estimate of a very short run may be exceeded before the rest counts as an outlier."""
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
        self._costs[size] = known + _WEIGHT * (min(seconds, 2 * known + _LEEWAY) - known)

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
