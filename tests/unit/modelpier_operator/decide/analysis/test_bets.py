"""The evidence is what the papers say: under the claim its expectation is at most 1."""

from __future__ import annotations

from math import comb, exp, log

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelpier_operator.decide.analysis.bets import Reference, evidence

SHARES = st.floats(0.001, 0.999)


def chance(bad: int, of: int, share: float) -> float:
    return comb(of, bad) * share**bad * (1 - share) ** (of - bad)


def expectation(of: int, stable: int, share: float, theirs: float, bet: tuple[float, float, float]) -> float:
    """Of the wealth after one block in which both sides have these true shares."""
    margin, expected, on = bet
    found = 0.0
    for bad in range(of + 1):
        for others in range(stable + 1):
            reference = Reference(of=stable, bad=others, margin=margin, expected=expected)
            odds = chance(bad, of, share) * chance(others, stable, theirs)
            found += odds * exp(evidence(bad, of, reference, on))
    return found


@given(st.integers(1, 5), st.integers(1, 6), SHARES, st.floats(0.0, 0.4), SHARES, SHARES)
def test_at_most(of: int, stable: int, theirs: float, margin: float, expected: float, on: float) -> None:
    """Whatever was expected and bet on, as long as it says "worse"."""
    assume(theirs + margin <= 1.0)
    assume(expected + margin < on)
    for share in (theirs + margin, 0.5 * (theirs + margin)):
        assert expectation(of, stable, share, theirs, (margin, expected, on)) <= 1 + 1e-9


@given(st.integers(1, 5), st.integers(1, 6), SHARES, st.floats(0.0, 0.4), SHARES, SHARES)
def test_at_least(of: int, stable: int, theirs: float, margin: float, expected: float, on: float) -> None:
    assume(theirs + margin <= 1.0)
    assume(on < min(1.0, expected + margin))
    assume(expected + margin < 1.0)
    for share in (theirs + margin, 0.5 + 0.5 * (theirs + margin)):
        assert expectation(of, stable, share, theirs, (margin, expected, on)) <= 1 + 1e-9


@given(st.integers(1, 12), st.floats(0.01, 0.5), SHARES)
def test_alone(of: int, limit: float, on: float) -> None:
    assume(abs(on - limit) > 1e-6)
    found = sum(chance(bad, of, limit) * exp(evidence(bad, of, Reference(margin=limit), on)) for bad in range(of + 1))
    assert found == pytest.approx(1.0)


def test_alone_it_is_the_likelihood_ratio() -> None:
    assert evidence(3, 10, Reference(margin=0.1), 0.4) == pytest.approx(3 * log(4) + 7 * log(0.6 / 0.9))


def test_it_grows_with_what_is_bad_and_falls_with_what_is_bad_on_the_other_side() -> None:
    def found(bad: int, others: int) -> float:
        return evidence(bad, 20, Reference(of=100, bad=others, margin=0.01, expected=0.01), 0.2)

    assert found(5, 1) > found(2, 1) > 0 > found(0, 1)
    assert found(5, 1) > found(5, 20)


def test_nothing_happened() -> None:
    assert evidence(0, 0, Reference(of=10, expected=0.1), 0.5) == 0.0
