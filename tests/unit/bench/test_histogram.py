import random
from itertools import pairwise

import pytest
from bench.server.histogram import Histogram, bucket_of, middle_of


def test_buckets_are_in_order_and_without_gaps() -> None:
    buckets = [bucket_of(value) for value in range(5000)]
    assert all(later - earlier in {0, 1} for earlier, later in pairwise(buckets))


@pytest.mark.parametrize("value", [0, 1, 63, 64, 65, 1000, 123_456, 10**9, 2**40 - 1])
def test_the_middle_of_a_bucket_is_near_all_that_it_holds(value: int) -> None:
    assert middle_of(bucket_of(value)) == pytest.approx(value, rel=0.016, abs=0.5)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0])
def test_percentiles_are_within_three_percent(share: float) -> None:
    values = sorted(int(random.Random(1).lognormvariate(13, 1)) + n for n in range(2000))
    exact = values[max(0, round(share * len(values)) - 1)] / 1e6
    assert Histogram.of(values).percentile(share) == pytest.approx(exact, rel=0.03)


def test_mean_and_most_are_exact() -> None:
    found = Histogram.of([1_000_000, 2_000_001, 6_000_002])
    assert (found.count, found.most) == (3, 6.000002)
    assert found.mean == pytest.approx(3.000001)


def test_no_percentile_lies_beyond_the_largest_value() -> None:
    assert Histogram.of([1_000_003] * 9).percentile(0.99) <= 1.000003


def test_of_nothing_everything_is_zero() -> None:
    empty = Histogram.of([])
    assert (empty.count, empty.mean, empty.most, empty.percentile(0.99)) == (0, 0.0, 0.0, 0.0)


def test_two_add_up_to_that_of_all_values() -> None:
    first, second = [5, 70, 7000], [70, 12_345_678]
    assert Histogram.of(first) + Histogram.of(second) == Histogram.of(first + second)


def test_it_travels() -> None:
    found = Histogram.of([3, 99, 99, 10**8])
    assert Histogram.decode(found.encode()) == found
