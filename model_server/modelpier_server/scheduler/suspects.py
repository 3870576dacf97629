"""Who of a failed batch is to blame: found by halves, so that one bad request among n costs about 2 log2(n) runs.

Only a request that fails in a run of its own fails; all others get their answer. The halves are runs like any others:
`Servable` starts them in turn with what waits in its queue, so that a failed batch stalls nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from modelpier_server.scheduler.work import Stage, Work


class Suspects:
    """Works to be run again, in groups of (those of the next run, those that share its verdict)."""

    def __init__(self) -> None:
        self._groups: deque[tuple[list[Work], list[Work]]] = deque()

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Work]:
        for works, rest in self._groups:
            yield from works
            yield from rest

    @property
    def first(self) -> list[Work]:
        """Works of the next run."""
        return self._groups[0][0]

    def next(self) -> tuple[list[Work], list[Work]]:
        """Works of one run, and the rest that must be told of its end by `failed` or `passed`."""
        return self._groups.popleft()

    def failed(self, works: list[Work], rest: list[Work]) -> None:
        """The run of `works` failed: what about `rest` is open."""
        self._halve(works)
        if rest:
            self._groups.append((rest, []))

    def passed(self, rest: list[Work]) -> None:
        """Together with `rest` it had failed: so one of `rest` is to blame, which needs no run to be known."""
        self._halve(rest)

    def _halve(self, works: list[Work]) -> None:
        left = [work for work in works if work.stage is Stage.RUNNING]
        if not left:
            return
        middle = (len(left) + 1) // 2 if len(left) > 1 else 1
        self._groups.append((left[:middle], left[middle:]))
