"""Replace, step by step and as a property: never more than the budget, never at a standstill."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpier_operator.decide.replacing import Hold, sizes


def hold(replicas: int, old: int, new: int, proved: int, *, spare: int = 0, cost: int = 1) -> Hold:
    return Hold(replicas, replicas + spare, old, new, proved, cost)


@pytest.mark.parametrize(
    ("now", "asked"),
    [
        (hold(1, old=1, new=0, proved=0), (0, 0)),  # the only GPU must come free first
        (hold(1, old=0, new=0, proved=0), (0, 1)),
        (hold(1, old=0, new=1, proved=1), (0, 1)),
        (hold(3, old=3, new=0, proved=0), (2, 0)),
        (hold(3, old=2, new=0, proved=0), (2, 1)),
        (hold(3, old=2, new=1, proved=0), (2, 1)),  # unproved: no further
        (hold(3, old=2, new=1, proved=1), (1, 1)),
        (hold(3, old=1, new=1, proved=1), (1, 2)),
        (hold(3, old=1, new=2, proved=2), (0, 2)),
        (hold(3, old=0, new=2, proved=2), (0, 3)),
        (hold(3, old=0, new=3, proved=3), (0, 3)),
    ],
)
def test_without_room_one_goes_before_one_comes(now: Hold, asked: tuple[int, int]) -> None:
    assert sizes(now) == asked


@pytest.mark.parametrize(
    ("now", "asked"),
    [
        (hold(4, old=4, new=0, proved=0, spare=2), (4, 2)),
        (hold(4, old=4, new=2, proved=2, spare=2), (2, 2)),
        (hold(4, old=2, new=2, proved=2, spare=2), (2, 4)),
        (hold(4, old=2, new=4, proved=4, spare=2), (0, 4)),
    ],
)
def test_with_some_room_nothing_goes_before_its_successor_serves(now: Hold, asked: tuple[int, int]) -> None:
    assert sizes(now) == asked


def test_a_larger_pod_needs_several_old_ones_gone() -> None:
    assert sizes(hold(2, old=2, new=0, proved=0, cost=2)) == (0, 0)
    assert sizes(hold(2, old=1, new=0, proved=0, cost=2)) == (0, 0)
    assert sizes(hold(2, old=0, new=0, proved=0, cost=2)) == (0, 1)


def test_a_lost_new_pod_does_not_bring_old_ones_back_while_its_node_holds_it() -> None:
    assert sizes(hold(3, old=1, new=2, proved=1)) == (1, 2)


def test_more_replicas_in_the_middle_go_to_the_old_revision_first() -> None:
    assert sizes(hold(4, old=1, new=1, proved=0)) == (3, 1)


@given(
    replicas=st.integers(1, 8),
    spare=st.integers(0, 8),
    old=st.integers(0, 16),
    bound=st.integers(0, 16),
    proved=st.integers(0, 16),
    cost=st.integers(1, 4),
)
def test_bounds(replicas: int, spare: int, old: int, bound: int, proved: int, cost: int) -> None:
    now = Hold(replicas, replicas + min(spare, replicas), old, bound, min(proved, bound), cost)
    old_asked, new_asked = sizes(now)
    assert 0 <= old_asked <= replicas
    assert 0 <= new_asked <= replicas
    assert max(old, old_asked) + new_asked * cost <= max(
        now.budget, max(old, old_asked) + bound * cost, replicas * cost
    )
    if new_asked > bound and old:
        assert max(old, old_asked) + new_asked * cost <= now.budget, "a new pod is asked for only into real room"


@given(replicas=st.integers(1, 6), spare=st.integers(0, 6), cost=st.integers(1, 3))
def test_it_always_gets_there(replicas: int, spare: int, cost: int) -> None:
    old, new = replicas, 0
    for _ in range(4 * replicas + 4):
        old_asked, new_asked = sizes(Hold(replicas, replicas + min(spare, replicas), old, new, new, cost))
        old, new = min(old, old_asked), new_asked
    assert (old, new) == (0, replicas)
