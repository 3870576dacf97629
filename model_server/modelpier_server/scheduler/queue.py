"""The queue of one model: works that can share a run lie together, the first in order (usually the oldest) at the head.

Only the event loop touches it.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator
from operator import attrgetter

from modelpier_server.scheduler.work import Key, Work

_order = attrgetter("order")


class WorkQueue:
    """Bounded by its owner (`len`)."""

    def __init__(self) -> None:
        self._groups: dict[Key | None, deque[Work]] = {}
        self._size = 0
        self.elements = 0
        """Input elements of all works."""

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Work]:
        for group in self._groups.values():
            yield from group

    def push(self, work: Work) -> None:
        group = self._groups.get(work.key)
        if group is None:
            group = self._groups[work.key] = deque()
            group.append(work)
        elif work.order >= group[-1].order:
            group.append(work)
        else:
            insort(group, work, key=_order)
        self._size += 1
        self.elements += work.elements

    def remove(self, work: Work) -> None:
        """Linear in the works of its group, which the queue's bound bounds."""
        group = self._groups[work.key]
        group.remove(work)
        self._size -= 1
        self.elements -= work.elements
        if not group:
            del self._groups[work.key]

    def last(self) -> Work:
        """Whoever would be run after all others."""
        return max((group[-1] for group in self._groups.values()), key=_order)

    def elements_before(self, order: int) -> int:
        """Input elements of the works that would be run before one of that place."""
        return sum(work.elements for work in self if work.order <= order)

    def rows_beside(self, head: Work, enough: int) -> int:
        """Rows that could share the run of `head`, its own too; counted up to `enough`."""
        rows = 0
        for work in self._groups[head.key]:
            rows += work.rows
            if rows >= enough:
                break
        return rows

    def heads(self) -> list[Work]:
        """The first work of every group, the first of all at the head."""
        if len(self._groups) == 1:
            return [group[0] for group in self._groups.values()]
        return sorted((group[0] for group in self._groups.values()), key=_order)

    def take(self, head: Work, max_rows: int) -> list[Work]:
        """`head` and what can share its run, up to `max_rows` rows; `head` alone where nothing can. Whoever takes them
        adds their elements up anyhow, and takes them off `elements`.
        """
        group = self._groups[head.key]
        works = [group.popleft()]
        rows = head.rows
        if rows:
            while group and rows + group[0].rows <= max_rows:
                rows += group[0].rows
                works.append(group.popleft())
        self._size -= len(works)
        if not group:
            del self._groups[head.key]
        return works
