"""The order of works."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from modelpier_server.scheduler.queue import WorkQueue
from modelpier_server.scheduler.work import Work

GROUPS = [None, (None, ((3,),)), (None, ((5,),))]


def work(group: int, rows: int, arrived: int) -> Work:
    made = Work({}, None, 0.0)
    made.key, made.arrived = GROUPS[group], arrived
    made.rows = rows if group else 0
    return made


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9))), st.integers(1, 12))
def test_everything_is_taken_once_in_order_and_within_the_limit(given: list[tuple[int, int]], limit: int) -> None:
    queue = WorkQueue()
    works = [work(group, rows, index) for index, (group, rows) in enumerate(given)]
    for each in works:
        queue.push(each)
    taken = []
    while queue:
        head = queue.heads()[0]
        assert head.arrived == min(w.arrived for w in queue)
        batch = queue.take(head, limit)
        assert batch[0] is head
        assert len({w.key for w in batch}) == 1
        assert len(batch) == 1 or sum(w.rows for w in batch) <= limit
        assert len(batch) == 1 or batch[0].rows
        taken.append(batch)
    flat = list(itertools.chain.from_iterable(taken))
    assert sorted(w.arrived for w in flat) == list(range(len(works)))
    for key in GROUPS:
        arrived = [w.arrived for w in flat if w.key == key]
        assert arrived == sorted(arrived)


def test_removed_works_are_gone() -> None:
    queue = WorkQueue()
    works = [work(1, 1, index) for index in range(3)]
    for each in works:
        queue.push(each)
    queue.remove(works[0])
    assert len(queue) == 2
    assert queue.heads() == [works[1]]
    queue.remove(works[1])
    queue.remove(works[2])
    assert not queue
    assert queue.heads() == []
