"""From counters of pods to what happened between two scrapes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import pytest

from modelpier_operator.decide.analysis.samples import Block, Counts, Sample
from modelpier_operator.decide.analysis.state import State
from modelpier_operator.decide.analysis.tally import Tally, observe, remembered, resumed

CRASH = 3


def sample(answered: int, failed: int = 0, restarts: int = 0, born: float = -60.0) -> Sample:
    return Sample(Counts(answered, failed), restarts, born)


def after(*scrapes: Mapping[str, Sample], tally: Tally = Tally()) -> tuple[Tally, Counts]:  # noqa: B008 - frozen
    """The candidate's sum over all scrapes."""
    found = Counts()
    for scrape in scrapes:
        tally, block = observe(tally, scrape, {}, CRASH)
        found = found.plus(block.candidate)
    return tally, found


@pytest.mark.parametrize(
    ("scrapes", "expected"),
    [
        ([{"a": sample(100)}], (0, 0)),  # there before: its first sample is where it begins
        ([{"a": sample(100, born=1.0)}], (100, 0)),  # born in the rollout: from zero
        ([{"a": sample(100)}, {"a": sample(130, 2)}], (30, 2)),
        ([{"a": sample(100)}, {"a": sample(7, restarts=1)}], (7, CRASH)),
        ([{"a": sample(100)}, {"a": sample(140, restarts=1)}], (140, CRASH)),  # overtook its old value since
        ([{"a": sample(100)}, {"a": sample(7)}], (7, 0)),  # the model was loaded anew in the same container
        ([{"a": sample(1, restarts=2)}], (0, 0)),  # crashes before the rollout are not the rollout's
        ([{"a": sample(1, restarts=2, born=1.0)}], (1, 2 * CRASH)),
        ([{"a": sample(10), "b": sample(20)}, {"b": sample(25)}], (5, 0)),  # a pod died: nothing is taken back
        ([{"a": sample(10)}, {}, {"a": sample(15)}], (5, 0)),  # out of reach for one scrape
    ],
)
def test_sums(scrapes: list[Mapping[str, Sample]], expected: tuple[int, int]) -> None:
    _, found = after(*scrapes)
    assert (found.answered, found.failed) == expected


def test_a_dead_pods_last_sample_is_kept() -> None:
    tally, _ = after({"a": sample(10)}, {"b": sample(1)})
    assert tally.candidate["a"] == sample(10)


def test_the_order_of_pods_is_irrelevant() -> None:
    first, second = sample(10, 1, born=1.0), sample(20, 2, restarts=1, born=2.0)
    pods = {"a": first, "b": second, "c": sample(5)}
    found = {after(dict(order))[1] for order in permutations(pods.items())}
    assert len(found) == 1


def test_both_sides_are_counted_alike() -> None:
    tally, _ = observe(Tally(), {"c": sample(0)}, {"s": sample(0)}, CRASH)
    _, block = observe(tally, {"c": sample(1, restarts=1)}, {"s": sample(9, restarts=1)}, CRASH)
    assert block == Block(Counts(1, CRASH), Counts(9, CRASH))


def test_another_operator_counts_nothing_twice_and_forgets_no_crash() -> None:
    pod = {"a": sample(50, restarts=1, born=5.0)}
    tally, before = after(pod)
    state = remembered(State(elapsed=20.0), tally)
    later = {"a": sample(80, restarts=2, born=5.0), "new": sample(4, born=25.0)}
    _, found = after(later, tally=resumed(state))
    assert (before.answered, before.failed) == (50, CRASH)
    assert (found.answered, found.failed) == (4, CRASH)  # a's requests since are unknown; its second crash is not
