"""Runs that nobody waits for any longer: they end, and the core is free again."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from modelpier_server import runtime
from modelpier_server.contract import Options
from modelpier_server.errors import Cancelled, DeadlineExceeded
from modelpier_server.scheduler import Servable
from modelpier_server.telemetry import Failure
from support import onnx_models
from support.serving import planned, running, tensor, threaded, until

FAR = float("inf")
ENDLESS = 1 << 62


def rounds(k: int) -> dict[str, np.ndarray]:
    return {"x": np.zeros((1, 3), np.float32), "k": np.array([k], np.int64)}


def cpu_of(served: Servable) -> float:
    """Seconds of CPU that the only runner's thread has used."""
    (runner,) = served._runners
    assert runner._thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(runner._thread.ident))


async def test_a_run_ends_with_its_only_waiter(tmp_path: Path) -> None:
    served = threaded(onnx_models.counting(), tmp_path)
    future = served.submit(rounds(ENDLESS), None, FAR)
    await until(lambda: served._running and cpu_of(served) > 0.02)
    future.cancel()
    await until(lambda: not served._running)
    used = cpu_of(served)
    (result,) = await served.submit(rounds(5), None, FAR)
    assert result.tolist() == [[5, 5, 5]]
    assert cpu_of(served) - used < 0.05
    assert served._metrics.failures[Failure.CANCELED] == 1
    assert served._metrics.failures[Failure.BACKEND] == 0
    served.close()


async def test_a_run_in_another_process_ends_with_its_only_waiter(tmp_path: Path) -> None:
    served = threaded(onnx_models.counting(), tmp_path, planned(instances=1, isolated=True))
    future = served.submit(rounds(ENDLESS), None, FAR)
    await until(lambda: served._running)
    future.cancel()
    await until(lambda: not served._running)
    assert (await served.submit(rounds(5), None, FAR))[0].tolist() == [[5, 5, 5]]
    served.close()


async def test_a_run_ends_when_its_time_is_over(tmp_path: Path) -> None:
    served = threaded(onnx_models.counting(), tmp_path)
    with pytest.raises(DeadlineExceeded):
        await served.submit(rounds(ENDLESS), None, time.monotonic() + 0.2)
    assert (await served.submit(rounds(3), None, FAR))[0].tolist() == [[3, 3, 3]]
    served.close()


async def test_a_run_goes_on_while_one_of_its_waiters_is_left(tmp_path: Path) -> None:
    served = threaded(onnx_models.counting(), tmp_path, rows=8)
    blocker = served.submit(rounds(60_000), None, FAR)
    await until(lambda: served._running)
    gone, stays = served.submit(rounds(60_000), None, FAR), served.submit(rounds(60_000), None, FAR)
    await blocker
    await until(lambda: any(len(batch.works) == 2 for batch in served._running))
    (batch,) = served._running
    gone.cancel()
    assert (await stays)[0].tolist() == [[60_000] * 3]
    assert batch.control is not None
    assert not batch.control.aborted
    served.close()


async def test_a_run_that_was_ended_teaches_nothing(tmp_path: Path) -> None:
    """It looked short, and the next one of its size would be run on the event loop."""
    served = threaded(onnx_models.counting(), tmp_path)
    for _ in range(20):
        future = served.submit(rounds(ENDLESS), None, FAR)
        await until(lambda: served._running)
        future.cancel()
        await until(lambda: not served._running)
    assert not served._placement._costs
    served.close()


async def test_close_ends_runs(tmp_path: Path) -> None:
    served = threaded(onnx_models.counting(), tmp_path)
    future = served.submit(rounds(ENDLESS), None, FAR)
    await until(lambda: served._running)
    (runner,) = served._runners
    await asyncio.to_thread(served.close)
    assert not runner._thread.is_alive()
    assert await asyncio.wait_for(asyncio.gather(future, return_exceptions=True), 5)


async def test_a_client_that_goes_away_ends_its_run(tmp_path: Path) -> None:
    served = threaded(onnx_models.counting(), tmp_path, planned(instances=1))
    async with running(served) as state:
        client = await state.client()
        message = {"inputs": [tensor([0, 0, 0]), tensor([ENDLESS], name="k", shape=[1], datatype="INT64")]}
        asking = asyncio.create_task(client.infer(message))
        await until(lambda: served._running)
        client.close()
        await until(lambda: not served._running)
        assert served.in_flight == 0
        await asyncio.gather(asking, return_exceptions=True)
        other = await state.client()
        message["inputs"][1]["data"] = [2]
        assert (await other.infer(message)).json["outputs"][0]["data"] == [2, 2, 2]


@pytest.mark.parametrize("before", [True, False])
def test_a_session_stops(tmp_path: Path, before: bool) -> None:
    """Whether it is told so before or while it runs."""
    session = runtime.load(onnx_models.write(onnx_models.counting(), tmp_path / "m.onnx"), Options())
    control = runtime.Control()
    timer = threading.Timer(0.0 if before else 0.1, control.abort)
    timer.start()
    if before:
        timer.join()
    with pytest.raises(Cancelled):
        session.run(rounds(ENDLESS), ["y"], control)
    timer.join()
