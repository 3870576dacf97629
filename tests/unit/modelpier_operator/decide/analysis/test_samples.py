"""Counters and histograms: sums, differences, resets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelpier_operator.decide.analysis.samples import Counts, Histogram

BOUNDS = (0.01, 0.1, 1.0)


@st.composite
def histograms(draw: st.DrawFn) -> Histogram:
    parts = draw(st.lists(st.integers(0, 50), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1))
    sums = [sum(parts[: i + 1]) for i in range(len(parts))]
    return Histogram(BOUNDS, tuple(sums[:-1]), sums[-1])


@st.composite
def counts(draw: st.DrawFn) -> Counts:
    numbers = draw(st.lists(st.integers(0, 99), min_size=5, max_size=5))
    answered, failed, nonfinite, compared, agreed = numbers
    return Counts(answered, failed, nonfinite, compared, agreed, draw(histograms()))


@given(counts(), counts())
def test_a_difference_is_never_negative(now: Counts, before: Counts) -> None:
    found = now.since(before)
    assert min(found.answered, found.failed, found.nonfinite, found.compared, found.agreed) >= 0
    assert found.latency.plausible


@given(counts(), counts())
def test_what_was_added_comes_back(before: Counts, more: Counts) -> None:
    found = before.plus(more).since(before)
    assert (found.answered, found.failed, found.agreed) == (more.answered, more.failed, more.agreed)
    assert found.latency.total == more.latency.total
    assert not more.latency.total or not before.latency.total or found.latency == more.latency


@given(counts())
def test_half_of_a_histogram_is_one(value: Counts) -> None:
    assert value.halved().latency.plausible
    assert value.halved().answered == value.answered // 2


def test_a_counter_that_went_down_began_anew_and_the_others_did_not() -> None:
    assert Counts(answered=3, failed=9).since(Counts(answered=10, failed=4)) == Counts(answered=3, failed=5)


def test_a_histogram_whose_buckets_fell_began_anew_although_its_total_grew() -> None:
    now, before = Histogram(BOUNDS, (1, 2, 9), 9), Histogram(BOUNDS, (5, 5, 5), 5)
    assert now.since(before) == now


def test_histograms_of_different_releases_are_added_where_they_agree() -> None:
    other = Histogram((0.1, 0.5), (3, 4), 5)
    assert Histogram(BOUNDS, (1, 2, 3), 4).plus(other) == Histogram((0.1,), (5,), 9)


def test_an_empty_histogram_has_no_say_in_the_bounds() -> None:
    some = Histogram(BOUNDS, (1, 2, 3), 4)
    assert Histogram().plus(some) == some.plus(Histogram()) == some
