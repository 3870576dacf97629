"""What is kept in an annotation comes back, and what cannot be read counts as absent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelpier_operator.decide.analysis.gates import Gates, Latency, Rate
from modelpier_operator.decide.analysis.looking import look
from modelpier_operator.decide.analysis.samples import Block, Counts, Histogram
from modelpier_operator.decide.analysis.state import Failure, State, next_step, read, write
from modelpier_server.telemetry import SECONDS

EVERY = Gates(
    errors=Rate(most=0.05, worse=0.01),
    latency=(Latency(0.5), Latency(0.9), Latency(0.99)),
    nonfinite=Rate(worse=0.0),
    agreement=0.99,
)


def busy(number: int) -> Counts:
    upto = tuple(number * (i + 1) // (len(SECONDS) + 1) for i in range(len(SECONDS)))
    return Counts(number, number // 50, 1, number, number, Histogram(SECONDS, upto, number))


def looked(times: int) -> State:
    state = State(restarts={"resnet50-8c5f458200-2-abcde": 1})
    for _ in range(times):
        state, _ = look(state, Block(busy(997), busy(8_991)), EVERY, state.elapsed + 2.0)
    return state


@pytest.mark.parametrize(
    "state",
    [
        State(),
        State(elapsed=1.5, paused=True, restarts={"a": 2}, over_memory=2),
        State(failure=Failure("p99", "too slow")),
        State(pending=Block(busy(10), Counts())),
    ],
)
def test_there_and_back(state: State) -> None:
    assert read(json.loads(json.dumps(write(state)))) == state


def test_there_and_back_with_evidence() -> None:
    first = read(json.loads(json.dumps(write(looked(30)))))
    assert first is not None
    assert len(first.wealth) == 10
    assert read(json.loads(json.dumps(write(first)))) == first


def test_it_fits_into_an_annotation() -> None:
    """With every gate and large counters."""
    assert len(json.dumps(write(looked(400)), separators=(",", ":"))) < 2_048


def test_nothing_is_written_of_what_is_unknown() -> None:
    assert write(State()) == {"version": 1}


def test_another_step_keeps_what_spoke_against_the_candidate() -> None:
    state = looked(30)
    following = next_step(state)
    assert following.step_requests == 0
    assert following.step_began == state.elapsed
    for key, value in following.wealth.items():
        assert value.worse == state.wealth[key].worse
        assert value.in_favour == pytest.approx(0.0)


@pytest.mark.parametrize(
    "spoilt",
    [
        None,
        [],
        "x",
        {},
        {"version": 99},
        {"version": 1, "elapsed": "soon"},
        {"version": 1, "wealth": {"p99/above": [1, 2]}},
        {"version": 1, "wealth": {"p99/above": [1, 0.0, 0, None, 0.1, 0.1, 0.1, 0.1, 0.1]}},
        {"version": 1, "seen": [[1, 2]]},
        {"version": 1, "seen": [[1, 0, 0, 0, 0, 5, [0.1, 0.2], [4, 2]], [1, 0, 0, 0, 0, 0, [], []]]},
        {"version": 1, "failure": ["p99"]},
        {"version": 1, "restarts": ["a"]},
    ],
)
def test_spoilt_state_counts_as_absent(spoilt: Any) -> None:
    assert read(spoilt) is None
