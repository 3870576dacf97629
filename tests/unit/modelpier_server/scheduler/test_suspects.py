"""Who of a failed batch is to blame, and what it costs to find out."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpier_server.errors import InferenceFailed
from modelpier_server.scheduler.suspects import Suspects
from modelpier_server.scheduler.work import Stage, Work
from support import onnx_models
from support.serving import Gated, gated, until

FAR = float("inf")


def works(count: int) -> list[Work]:
    made = [Work({}, None, FAR) for _ in range(count)]
    for work in made:
        work.stage = Stage.RUNNING
    return made


def judged(group: list[Work], poison: set[Work]) -> tuple[set[Work], list[Work], int]:
    """(works that failed, works that were answered, runs) after a batch of `group` has failed."""
    suspects, blamed, passed, runs = Suspects(), set(), [], 0
    suspects.failed(group, [])
    while suspects:
        now, rest = suspects.next()
        runs += 1
        if not poison & set(now):
            passed += now
            if rest:
                suspects.passed(rest)
        elif len(now) == 1:
            blamed.update(now)
            suspects.failed([], rest)
        else:
            suspects.failed(now, rest)
    return blamed, passed, runs


@given(st.data(), st.integers(2, 70))
def test_exactly_the_poisonous_ones_fail_and_everyone_is_judged_once(data: st.DataObject, count: int) -> None:
    group = works(count)
    poison = {group[i] for i in data.draw(st.sets(st.integers(0, count - 1), min_size=1))}
    blamed, passed, runs = judged(group, poison)
    assert blamed == poison
    assert len(passed) == count - len(poison)
    assert set(passed) == set(group) - poison
    assert runs < 2 * count


@pytest.mark.parametrize("at", range(64))
def test_one_in_64_is_found_in_twelve_runs_at_most(at: int) -> None:
    group = works(64)
    _, _, runs = judged(group, {group[at]})
    assert runs <= 2 * math.log2(64)


def test_those_that_left_are_not_run_again() -> None:
    suspects, group = Suspects(), works(4)
    for work in group[:3]:
        work.stage = Stage.DONE
    suspects.failed(group, [])
    assert suspects.next() == ([group[3]], [])
    assert not suspects
    suspects.failed(group[:3], [])
    assert not suspects


def poisonable(k: int) -> dict[str, np.ndarray]:
    return {"x": np.ones((1, 3), np.float32), "k": np.array([k], np.int64)}


async def test_others_are_run_between_the_halves(tmp_path: Path) -> None:
    served, session = gated(onnx_models.reshape_poison(), tmp_path, rows=16)
    first = served.submit(poisonable(3), None, FAR)
    await until(lambda: session.runs == [1])
    futures = [served.submit(poisonable(7 if index == 0 else 3), None, FAR) for index in range(16)]
    others: list[asyncio.Future[list[np.ndarray]]] = []
    answered_after: list[int] = []

    def come(_: object) -> None:
        """A stranger comes with the second run, and asks how many runs there were when it was answered."""
        other = served.submit(poisonable(3), None, FAR)
        other.add_done_callback(lambda _: answered_after.append(len(session.runs)))
        others.append(other)

    Stepping(session, 2, come)
    session.gate.set()
    results = await asyncio.gather(first, *futures, return_exceptions=True)
    await asyncio.gather(*others)
    assert [isinstance(result, InferenceFailed) for result in results] == [False, True] + [False] * 15
    assert answered_after[0] <= 5
    assert len(session.runs) <= 1 + 1 + 8 + 1
    served.close()


class Stepping:
    """Calls `then` on the loop when the session's run number `number` starts."""

    def __init__(self, session: Gated, number: int, then: object) -> None:
        loop, run = asyncio.get_running_loop(), session._session.run

        def stepping(feeds: object, outputs: object, control: object = None) -> object:
            if len(session.runs) == number:
                loop.call_soon_threadsafe(then, None)  # type: ignore[arg-type]
            return run(feeds, outputs, control)  # type: ignore[arg-type]

        session._session.run = stepping  # type: ignore[method-assign, assignment]


async def test_a_poisonous_request_among_suspects_may_leave(tmp_path: Path) -> None:
    """Its batch-mates get their answers all the same."""
    served, session = gated(onnx_models.reshape_poison(), tmp_path, rows=8)
    first = served.submit(poisonable(3), None, FAR)
    await until(lambda: session.runs == [1])
    futures = [served.submit(poisonable(7 if index == 0 else 3), None, FAR) for index in range(8)]
    Stepping(session, 3, lambda _: futures[0].cancel())
    session.gate.set()
    results = await asyncio.gather(first, *futures, return_exceptions=True)
    assert sum(isinstance(result, list) for result in results) == 8
    assert served.in_flight == 0
    assert not served._suspects
    served.close()
