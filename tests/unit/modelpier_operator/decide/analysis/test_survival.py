"""Shares above bounds, and between them."""

from __future__ import annotations

import pytest

from modelpier_operator.decide.analysis.samples import Histogram
from modelpier_operator.decide.analysis.survival import Past

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25)
SEEN = Histogram(BOUNDS, (1000, 6000, 9000, 9950, 9999), 10000)


@pytest.mark.parametrize(
    ("quantile", "expected"),
    [
        (0.5, [(0, False), (1, True)]),  # nine tenths above 10 ms say nothing of the median
        (0.99, [(2, False), (3, True)]),
        (0.98, [(2, False), (3, True)]),
        (0.95, [(2, True), (3, False)]),
        (0.01, [(0, True), (0, True)]),
        (0.99999, [(3, False), (4, True)]),
    ],
)
def test_bounds_around_a_quantile(quantile: float, expected: list[tuple[int, bool]]) -> None:
    assert list(Past(SEEN).bounds(quantile)) == expected


def test_without_a_ratio_only_what_is_above_the_bound_is_bad() -> None:
    found = Past(SEEN).reference(3, 1.0, SEEN)
    assert (found.bad, found.weight * found.part) == (50, 0.0)
    assert found.expected == pytest.approx(0.005, abs=1e-4)


def test_between_two_bounds_shares_fall_smoothly_from_one_to_the_other() -> None:
    found = [Past(SEEN).reference(3, ratio, SEEN).expected for ratio in (1.0, 1.2, 1.44, 1.7, 1.999)]
    assert found == sorted(found)
    assert found[0] == pytest.approx(0.005, abs=1e-4)
    assert found[-1] == pytest.approx(0.1, abs=1e-3)


def test_a_large_ratio_reaches_over_several_buckets() -> None:
    found = Past(SEEN).reference(3, 3.0, SEEN)
    assert (found.bad, found.part) == (1000, 3000)  # above 50 ms; between 25 and 50


def test_below_the_lowest_bound_there_is_a_share_too() -> None:
    found = Past(SEEN).reference(0, 1.5, SEEN)
    assert 0.9 < found.expected < 1.0
