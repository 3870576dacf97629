"""What is compared in one block, and what the limit of latency means."""

from __future__ import annotations

import pytest

from modelpier_operator.decide.analysis import claims
from modelpier_operator.decide.analysis.gates import Gates, Latency, Rate
from modelpier_operator.decide.analysis.samples import Block, Counts, Histogram

BOUNDS = (0.01, 0.025, 0.05, 0.1)
STABLE = Counts(1000, latency=Histogram(BOUNDS, (400, 900, 990, 999), 1000))
P99 = Latency(0.99, 1.2)


def candidate(above_50_ms: int) -> Counts:
    return Counts(1000, latency=Histogram(BOUNDS, (400, 900, 1000 - above_50_ms, 999), 1000))


@pytest.mark.parametrize(("above", "expected"), [(10, None), (13, None), (40, 2), (90, 2)])
def test_slower_than_allowed(above: int, expected: int | None) -> None:
    """Of the stable version 1 % take longer than 50 ms, and about 1.8 % longer than 50/1.2 ms."""
    assert claims.slower(P99, Block(candidate(above), STABLE)) == expected


def test_nothing_is_slower_where_nothing_was_seen() -> None:
    assert claims.slower(P99, Block()) is None


def test_every_gate_has_its_keys() -> None:
    gates = Gates(errors=Rate(0.1, 0.01), latency=(P99,), nonfinite=Rate(worse=0.0), agreement=0.9)
    assert claims.keys(gates) == {
        "errors.most": ("errors.most",),
        "errors.worse": ("errors.worse",),
        "nonfinite.worse": ("nonfinite.worse",),
        "p99": ("p99/below", "p99/above"),
        "agreement": ("agreement",),
    }
    assert claims.keys(Gates(errors=None, latency=())) == {}


def test_latency_waits_until_it_knows_where_to_look() -> None:
    gates, block = Gates(errors=None, latency=(P99,)), Block(candidate(10), STABLE)
    few = Counts(99, latency=Histogram(BOUNDS, (40, 90, 98, 99), 99))
    assert not list(claims.compared(gates, block, Block(few, few)))
    assert [claim.key for claim in claims.compared(gates, block, block)] == ["p99/below", "p99/above"]


def test_releases_with_other_buckets_are_compared_where_they_agree() -> None:
    gates = Gates(errors=None, latency=(P99,))
    other = Counts(1000, latency=Histogram((0.02, 0.05), (700, 980), 1000))
    (first, second) = claims.compared(gates, Block(other, STABLE), Block(other, STABLE))
    assert (first.bad, first.of, second.bad) == (20, 1000, 20)  # 50 ms is all that both know


def test_versions_without_a_bucket_in_common_are_not_compared() -> None:
    other = Counts(1000, latency=Histogram((0.02,), (700,), 1000))
    gates, block = Gates(errors=None, latency=(P99,)), Block(other, STABLE)
    assert not list(claims.compared(gates, block, block))
    assert claims.slower(P99, block) is None
