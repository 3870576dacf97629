"""Runs that do not end: they are ended where that is possible, and liveness says so where it is not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from modelpier_server.contract import Limits, PlannedModel
from modelpier_server.errors import DeadlineExceeded, InferenceFailed
from modelpier_server.lifecycle.catalog import Catalog, Entry
from modelpier_server.scheduler import Servable, guard
from modelpier_server.scheduler import servable as module
from modelpier_server.telemetry import Failure
from support import onnx_models
from support.serving import Gated, gated, planned, running, servable, tensor, threaded, until

FAR = float("inf")
ENDLESS = 1 << 62


def rounds(k: int) -> dict[str, np.ndarray]:
    return {"x": np.zeros((1, 3), np.float32), "k": np.array([k], np.int64)}


def plan(**limits: float) -> PlannedModel:
    return planned(instances=1, limits=Limits(**limits))  # type: ignore[arg-type]


async def test_a_run_over_its_time_is_ended_and_its_thread_goes_on(tmp_path: Path) -> None:
    served = threaded(onnx_models.counting(), tmp_path, plan(run_timeout=0.2))
    with pytest.raises(InferenceFailed, match="did not end its run in time"):
        await served.submit(rounds(ENDLESS), None, FAR)
    assert (await served.submit(rounds(4), None, FAR))[0].tolist() == [[4, 4, 4]]
    assert served._metrics.failures[Failure.BACKEND] == 1
    assert len(served._runners) == 1
    assert not served.hung
    served.close()


async def test_batch_mates_of_a_run_that_was_ended_get_their_answers(tmp_path: Path) -> None:
    served = threaded(onnx_models.counting(), tmp_path, plan(run_timeout=2.0), rows=8)
    first = served.submit(rounds(ENDLESS), None, FAR)
    await until(lambda: served._running)
    futures = [served.submit(rounds(ENDLESS if index == 2 else 5), None, FAR) for index in range(6)]
    first.cancel()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [isinstance(result, InferenceFailed) for result in results] == [False] * 2 + [True] + [False] * 3
    served.close()


async def test_what_a_run_may_take_by_default(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path, plan(request_timeout=3.0))
    future = served.submit({"x": np.zeros((1, 3), np.float32)}, None, FAR)
    await until(lambda: session.runs)
    (batch,) = served._running
    assert -3.0 < served._overtime(batch) < 0
    served._forecast.longest = 7.0
    assert -70.0 < served._overtime(batch) < -60
    session.gate.set()
    await future
    served.close()


@pytest.fixture
async def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Servable, Gated]]:
    """A runner thread in an operator that does not look at anything."""
    monkeypatch.setattr(module, "HUNG_AFTER", 0.1)
    served, session = gated(onnx_models.identity(), tmp_path, plan(request_timeout=0.1, run_timeout=0.2))
    with pytest.raises(DeadlineExceeded):
        await served.submit({"x": np.zeros((1, 3), np.float32)}, None, time.monotonic() + 0.1)
    yield served, session
    session.gate.set()
    served.close()


async def test_liveness_notices_a_thread_that_hangs(stuck: tuple[Servable, Gated]) -> None:
    served, session = stuck
    catalog: Catalog[Servable] = Catalog()
    catalog.publish([Entry(served.planned, served)], [served.planned], [], complete=True)
    assert catalog.live
    await until(lambda: served.hung)
    assert not catalog.live
    async with running(served) as state:
        state.shelf.live = catalog.live
        client = await state.client()
        assert (await client.request("GET", "/v2/health/live")).status == 503
        catalog.draining = True
        assert catalog.live  # the end is near anyhow
        catalog.draining = False
        session.gate.set()
        await until(lambda: not served._running)
        assert catalog.live


async def test_nobody_has_to_wait_for_it_to_be_noticed(stuck: tuple[Servable, Gated]) -> None:
    """Its requests are long gone."""
    served, _ = stuck
    assert served.in_flight == 0
    assert not served.hung
    await until(lambda: served.hung)
    (batch,) = served._running
    assert batch.control is not None
    assert batch.control.aborted


# ---------------------------------------------------------------------------------------------- on the event loop
@pytest.fixture
async def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Servable]:
    """A model that warm-up has found to be short: its runs are on the loop."""
    monkeypatch.setattr(guard, "LIMIT", 0.2)
    monkeypatch.setattr(module, "LIMIT", 0.2)
    monkeypatch.setattr(guard, "INTERVAL", 0.02)
    served = servable(onnx_models.counting(), tmp_path, plan(request_timeout=60.0, run_timeout=0.5))
    served._placement.learn(4, 10e-6)
    yield served
    served.close()


async def test_a_run_on_the_loop_that_does_not_end_is_moved_to_a_thread(short: Servable) -> None:
    before = time.monotonic()
    future = short.submit(rounds(ENDLESS), None, FAR)
    await until(lambda: short._running)  # the loop has come back
    assert time.monotonic() - before < 5
    assert not future.done()
    with pytest.raises(InferenceFailed, match="did not end"):
        await future
    assert (await short.submit(rounds(2), None, FAR))[0].tolist() == [[2, 2, 2]]
    assert not short._placement.on_loop(4)


async def test_a_long_run_on_the_loop_gets_its_answer_all_the_same(short: Servable) -> None:
    short.limits = Limits()
    future = short.submit(rounds(150_000), None, FAR)
    assert (await future)[0].tolist() == [[150_000] * 3]


async def test_health_answers_after_a_request_that_never_ends(short: Servable) -> None:
    async with running(short) as state:
        bad, good = await state.client(), await state.client()
        message = {"inputs": [tensor([0, 0, 0]), tensor([ENDLESS], name="k", shape=[1], datatype="INT64")]}
        asking = asyncio.create_task(bad.infer(message))
        await until(lambda: short._running)
        assert (await good.request("GET", "/v2/health/live")).status == 200
        assert (await asking).status == 500
        message["inputs"][1]["data"] = [1]
        assert (await good.infer(message)).status == 200


def test_the_guards_thread_ends_with_its_loop() -> None:
    made = guard.Guard()
    made.begin()
    made.end()
    mine = [thread for thread in threading.enumerate() if thread.name == "loop-guard"]
    assert mine
    del made
    before = len(mine)
    end = time.monotonic() + 5
    while len([thread for thread in threading.enumerate() if thread.name == "loop-guard"]) >= before:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_run_that_was_hit_by_mistake_is_run_with_a_fresh_control() -> None:
    made = guard.Guard()
    control = made.begin()
    control.abort()
    made.end()
    assert not made.begin().aborted
    made.end()
