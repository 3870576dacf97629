"""Verdicts, block by block."""

from __future__ import annotations

import json
from math import log
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpier_operator.decide.analysis.gates import Gates, Latency, Memory, Rate
from modelpier_operator.decide.analysis.looking import Holding, Outcome, Verdict, look
from modelpier_operator.decide.analysis.samples import Block, Counts, Histogram
from modelpier_operator.decide.analysis.state import State, next_step, read, write

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
ERRORS = Gates(latency=())
NONE = Rate(most=0.0)
BEGINNING = State()


def latency(number: int, slower: float = 1.0) -> Histogram:
    """Log-normal around 10 ms, without chance."""
    normal = NormalDist(0.0, 0.6)
    share = [normal.cdf(log(bound / (0.01 * slower))) for bound in BOUNDS]
    return Histogram(BOUNDS, tuple(round(number * s) for s in share), number)


def side(answered: int, failed: int = 0, slower: float = 1.0, **more: Any) -> Counts:
    return Counts(answered, failed, latency=latency(answered, slower), **more)


GOOD = Block(side(100), side(900))


def looks(blocks: list[Block], gates: Gates, state: State = BEGINNING, **more: Any) -> tuple[State, Verdict, int]:
    """Until the first verdict, each time through JSON as the operator keeps it. (state, verdict, looks)."""
    for number, block in enumerate(blocks, start=1):
        state, verdict = look(state, block, gates, state.elapsed + 2.0, **more)
        state = read(json.loads(json.dumps(write(state)))) or State()
        if verdict.outcome is not Outcome.CONTINUE:
            return state, verdict, number
    return state, verdict, number


def test_a_good_version_passes() -> None:
    state, verdict, _ = looks([GOOD] * 100, Gates())
    assert verdict.outcome is Outcome.PASS
    assert "enough to trust the candidate (errors.worse, p50, p99)" in verdict.message
    assert state.failure is None


@pytest.mark.parametrize(
    ("bad", "gates", "gate", "most", "says"),
    [
        (Block(side(0, 20), side(180)), ERRORS, "errors.worse", 1, "100 % of 20 requests of the candidate failed"),
        (Block(side(95, 5), side(900)), ERRORS, "errors.worse", 6, "at most 1 % more may"),
        (Block(side(95, 5), Counts()), Gates(errors=Rate(most=0.01), latency=()), "errors.most", 6, "at most 1 % may"),
        (Block(side(100, slower=1.5), side(900)), Gates(), "p50", 8, "took longer than 0.01 s"),
        (Block(side(100, slower=1.5), side(900)), Gates(latency=(Latency(0.9),)), "p90", 15, "its p90 may be at most"),
        (
            Block(side(99, nonfinite=1), side(9)),
            Gates(None, (), NONE),
            "nonfinite.most",
            1,
            "NaN or infinity",
        ),
        (
            Block(side(100, compared=50, agreed=45), side(900)),
            Gates(errors=None, latency=(), agreement=0.99),
            "agreement",
            4,
            "shadow answers agree",
        ),
    ],
)
def test_a_bad_version_fails(bad: Block, gates: Gates, gate: str, most: int, says: str) -> None:
    _, verdict, number = looks([bad] * 50, gates)
    assert (verdict.outcome, verdict.gate) == (Outcome.FAIL, gate)
    assert number <= most
    assert says in verdict.message


@pytest.mark.parametrize(
    ("block", "gates"),
    [
        (Block(side(985, 15), side(8955, 45)), ERRORS),  # one percentage point more
        (Block(side(97, 3), side(873, 27)), ERRORS),  # both fail
        (Block(side(100, slower=3.0), side(900, slower=3.0)), Gates()),  # load slows down both
        (Block(side(100, slower=0.5), side(900)), Gates()),
        (Block(side(1000, slower=1.1), side(9000)), Gates()),  # slower, and within the limit
    ],
)
def test_what_is_tolerated_never_fails(block: Block, gates: Gates) -> None:
    state = State()
    for _ in range(200):
        state, verdict = look(state, block, gates, state.elapsed + 2.0)
        assert verdict.outcome is not Outcome.FAIL, verdict.message


def test_a_version_that_breaks_late_is_found_as_fast() -> None:
    state, _, _ = looks([GOOD] * 3, ERRORS)
    for _ in range(300):
        state, _ = look(state, GOOD, ERRORS, state.elapsed + 2.0)
    _, verdict, number = looks([Block(side(5, 5), side(90))] * 10, ERRORS, next_step(state))
    assert verdict.outcome is Outcome.FAIL
    assert number <= 2


@pytest.mark.parametrize("least", [0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("agreed", "expected"), [(1.0, Outcome.PASS), (0.0, Outcome.FAIL)])
def test_any_share_of_agreement_can_be_asked_for(least: float, agreed: float, expected: Outcome) -> None:
    gates = Gates(errors=None, latency=(), agreement=least)
    block = Block(side(100, compared=100, agreed=round(100 * agreed)), side(900))
    assert looks([block] * 30, gates)[1].outcome is expected


def test_failing_is_final() -> None:
    state, verdict, _ = looks([Block(side(0, 20), side(180))], ERRORS)
    again, second = look(state, GOOD, ERRORS, 100.0)
    assert (again, second) == (state, verdict)
    assert look(next_step(state), GOOD, ERRORS, 100.0)[1] == verdict


def test_too_few_samples_pause_and_are_never_passed_later() -> None:
    gates = Gates(latency=(), max_wait=60.0)
    few = Block(side(1), side(9))
    state, verdict, number = looks([few] * 100, gates)
    assert (verdict.outcome, verdict.gate, number) == (Outcome.PAUSE, "minimum_samples", 30)
    assert "at least 100 are needed" in verdict.message
    state, verdict, number = looks([GOOD], gates, state)
    for _ in range(50):
        state, verdict = look(state, GOOD, gates, state.elapsed + 2.0)
        assert verdict.outcome is Outcome.PAUSE
    assert "a person has to decide" in verdict.message
    assert looks([GOOD] * 50, gates, next_step(state))[1].outcome is Outcome.PASS


def test_a_paused_step_can_fail() -> None:
    gates = Gates(latency=(), max_wait=10.0)
    state, verdict, _ = looks([Block(side(1), side(9))] * 10, gates)
    assert verdict.outcome is Outcome.PAUSE
    assert looks([Block(side(0, 20), side(180))], gates, state)[1].outcome is Outcome.FAIL


def test_each_step_is_passed_on_its_own() -> None:
    state, _, first = looks([GOOD] * 100, Gates())
    _, verdict, second = looks([GOOD] * 100, Gates(), next_step(state))
    assert verdict.outcome is Outcome.PASS
    assert second >= first / 3


def test_without_the_stable_versions_requests_nothing_is_compared_and_nothing_lost() -> None:
    state, verdict, _ = looks([Block(side(100), Counts())] * 5, ERRORS)
    assert (verdict.outcome, verdict.gate) == (Outcome.CONTINUE, "errors.worse")
    assert state.pending.candidate.requests == 500
    state, _, _ = looks([Block(Counts(), side(10))], ERRORS, state)
    assert state.pending == Block()
    assert state.seen == Block(Counts(500, latency=state.seen.candidate.latency), side(10))


def test_one_crash_after_many_good_answers_is_forgiven_and_the_second_is_not() -> None:
    crash = Block(side(10, Gates().restart_failures), side(117))
    state, verdict, _ = looks([Block(side(13), side(117))] * 20 + [crash], ERRORS)
    assert verdict.outcome is Outcome.CONTINUE
    _, verdict, _ = looks([crash] * 2, ERRORS, state)
    assert verdict.outcome is Outcome.FAIL
    assert "A restarted container counts as 3." in verdict.message


@pytest.mark.parametrize("gate", [Memory(most=100), Memory(ratio=1.5)])
def test_memory_has_to_be_above_its_limit_three_times_in_a_row(gate: Memory) -> None:
    gates = Gates(errors=None, latency=(), memory=gate, minimum_samples=10_000)
    state = State()
    for size in (110, 110, 90, 110, 110):
        state, verdict = look(state, GOOD, gates, state.elapsed + 2.0, Holding(size, 70))
        assert verdict.outcome is Outcome.CONTINUE
    _, verdict = look(state, GOOD, gates, 20.0, Holding(110, 70))
    assert (verdict.outcome, verdict.gate) == (Outcome.FAIL, "memory")


def test_nothing_passes_while_it_holds_too_much() -> None:
    gates = Gates(errors=None, latency=(), memory=Memory(most=100))
    _, verdict = look(State(), Block(side(100), side(1)), gates, 2.0, Holding(110))
    assert (verdict.outcome, verdict.gate) == (Outcome.CONTINUE, "memory")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60), st.floats(0.2, 5.0)), min_size=1, max_size=40))
def test_equal_traffic_never_fails(blocks: list[tuple[int, int, float]]) -> None:
    """Whatever both do together: fail, slow down, recover."""
    state = State()
    for answered, failed, slower in blocks:
        both = side(answered, failed, slower)
        state, verdict = look(state, Block(both, both), Gates(), state.elapsed + 2.0)
        assert verdict.outcome is not Outcome.FAIL


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3), st.integers(0, 300)), min_size=1, max_size=60))
def test_an_operator_that_forgets_all_but_the_annotation_decides_the_same(blocks: list[tuple[int, int, int]]) -> None:
    kept = fresh = State()
    for answered, failed, others in blocks:
        block = Block(side(answered, failed, 1.2), side(others))
        kept, one = look(kept, block, Gates(), kept.elapsed + 2.0)
        fresh, other = look(read(json.loads(json.dumps(write(fresh)))) or State(), block, Gates(), fresh.elapsed + 2.0)
        assert one.outcome is other.outcome
        if one.outcome is Outcome.FAIL:
            return
