"""Both error rates by chance, on a few hundred runs; `make bench-analysis` plays ten thousand of each."""

from __future__ import annotations

import pytest
from bench.analysis import play, report
from bench.analysis.scenarios import ALL_BAD, TARGETS, Scenario

RUNS = 200
SLACK = 0.03
REFEREED = 2

CERTAIN = [scenario for scenario in TARGETS if scenario.candidate.tail == 1.0 and scenario.weight == 50]


@pytest.mark.parametrize("scenario", CERTAIN, ids=lambda scenario: str(scenario.name))
def test_error_rates(scenario: Scenario) -> None:
    found = play.play(scenario, RUNS, 1, REFEREED)
    assert report.missed(scenario, found) <= SLACK


def test_a_slow_tail_is_hardly_ever_passed() -> None:
    (scenario,) = (s for s in TARGETS if s.candidate.tail > 1.0 and s.weight == 50)
    found = play.play(scenario, RUNS, 1, REFEREED)
    assert found.promoted.mean() <= 0.05
    assert found.rolled_back.mean() >= 0.03


def test_a_broken_candidate_is_gone_before_its_fiftieth_answer() -> None:
    found = play.play(ALL_BAD[0], RUNS, 1, REFEREED)
    assert found.rolled_back.all()
    assert found.bad.max() < 50


def test_the_same_seed_is_the_same_run() -> None:
    first, second = (play.play(ALL_BAD[0], 20, 3, 0) for _ in range(2))
    assert (first.bad == second.bad).all()
    assert (play.play(ALL_BAD[0], 20, 4, 0).bad != first.bad).any()
