"""Scatter beyond chance is found; a lasting difference is none."""

from __future__ import annotations

import random

from modelpier_operator.decide.analysis.dispersion import Dispersion


def after(differences: list[float], variance: float) -> float:
    known = Dispersion()
    for difference in differences:
        known = known.after(difference, variance)
    return known.factor


def draws(deviation: float, shift: float = 0.0) -> list[float]:
    chance = random.Random(1)
    return [shift + chance.gauss(0.0, deviation) for _ in range(400)]


def test_independent_requests_scatter_as_expected() -> None:
    assert 1.0 <= after(draws(0.1), 0.01) < 1.2


def test_requests_that_are_slow_together_scatter_more() -> None:
    assert 3.5 < after(draws(0.2), 0.01) < 4.5


def test_a_lasting_difference_is_no_scatter() -> None:
    assert after(draws(0.1, shift=5.0), 0.01) == after(draws(0.1), 0.01)


def test_less_scatter_than_chance_makes_no_evidence_stronger() -> None:
    assert after([0.0] * 100, 0.01) == 1.0


def test_one_wild_block_is_believed_only_in_part() -> None:
    assert 1.0 < after([0.0, 0.5], 0.01) < 3.0
