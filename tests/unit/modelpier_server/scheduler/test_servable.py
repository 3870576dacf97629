"""The way of requests through queue, batches and threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from modelpier_server.contract import Batching, Limits
from modelpier_server.errors import DeadlineExceeded, InferenceFailed, InvalidRequest, QueueFull, Unavailable
from modelpier_server.scheduler import Servable
from modelpier_server.scheduler.work import FutureWork
from modelpier_server.telemetry import Failure, Metrics
from support import onnx_models
from support.serving import Gated, gated, planned, servable, until

FAR = float("inf")


def x(*rows: float) -> dict[str, np.ndarray]:
    """One row [v, v, v] per value."""
    return {"x": np.repeat(np.array(rows, np.float32)[:, None], 3, axis=1)}


@pytest.fixture
async def blocked(tmp_path: Path) -> AsyncIterator[tuple[Servable, Gated]]:
    """One runner, up to 4 rows per run, all runs behind a gate; a first request already runs."""
    plan = planned(instances=1, limits=Limits(max_queue=6))
    served, session = gated(onnx_models.identity(), tmp_path, plan, rows=4)
    first = served.submit(x(0), None, FAR)
    await until(lambda: session.runs == [1])
    yield served, session
    session.gate.set()
    await asyncio.gather(first, return_exceptions=True)
    served.close()


async def test_a_short_model_runs_on_the_loop(tmp_path: Path) -> None:
    served = servable(onnx_models.identity(), tmp_path)
    results = await asyncio.gather(*(served.submit(x(i), None, FAR) for i in range(10)))
    assert [result[0][0, 0] for result in results] == list(range(10))
    assert not served._runners
    assert served._metrics.success == 10
    assert served._metrics.executions == 1
    served.close()


async def test_a_long_model_runs_on_threads(tmp_path: Path) -> None:
    served = servable(onnx_models.slow(), tmp_path, planned(instances=2))
    inputs = {"x": np.ones((64, 512), np.float32)}
    results = await asyncio.gather(*(served.submit(inputs, None, FAR) for _ in range(4)))
    assert all(result[0].shape == (64, 512) for result in results)
    assert 1 <= len(served._runners) <= 2
    served.close()


async def test_a_batch_forms_while_the_previous_one_runs(blocked: tuple[Servable, Gated]) -> None:
    served, session = blocked
    futures = [served.submit(x(i), None, FAR) for i in range(1, 6)]
    assert served._metrics.pending == 5
    session.gate.set()
    results = await asyncio.gather(*futures)
    assert session.runs == [1, 4, 1]
    assert [result[0][0, 0] for result in results] == [1, 2, 3, 4, 5]
    assert served._metrics.pending == 0


async def test_rows_are_counted_not_requests(blocked: tuple[Servable, Gated]) -> None:
    served, session = blocked
    futures = [served.submit(x(*range(n)), None, FAR) for n in (3, 2, 2, 9, 1)]
    session.gate.set()
    results = await asyncio.gather(*futures)
    assert session.runs == [1, 3, 4, 4, 1, 4, 1]  # the nine are run in pieces, others between them
    assert [len(result[0]) for result in results] == [3, 2, 2, 9, 1]
    assert served._metrics.rows == 1 + 17


async def test_only_the_same_outputs_share_a_run(tmp_path: Path) -> None:
    served, session = gated(onnx_models.add(), tmp_path, rows=8)
    inputs = {"a": np.ones((1, 3), np.float32), "b": np.ones((1, 3), np.float32)}
    first = served.submit(inputs, None, FAR)
    await until(lambda: session.runs == [1])
    futures = [served.submit(inputs, wanted, FAR) for wanted in (None, ["sum"], None, ["sum"])]
    session.gate.set()
    results = await asyncio.gather(*futures)
    await first
    assert session.runs == [1, 2, 2]
    assert [len(result) for result in results] == [2, 1, 2, 1]
    served.close()


async def test_only_the_same_lengths_share_a_run(tmp_path: Path) -> None:
    served, session = gated(onnx_models.variable_length(), tmp_path, rows=8)

    def ids(length: int) -> dict[str, np.ndarray]:
        return {"ids": np.arange(length, dtype=np.int64)[None]}

    first = served.submit(ids(1), None, FAR)
    await until(lambda: session.runs == [1])
    futures = [served.submit(ids(length), None, FAR) for length in (3, 5, 3, 5, 3)]
    session.gate.set()
    results = await asyncio.gather(*futures)
    await first
    assert session.runs == [1, 3, 2]
    assert [result[0].tolist()[0] for result in results] == [
        [2 * i for i in range(length)] for length in (3, 5, 3, 5, 3)
    ]
    served.close()


@pytest.mark.parametrize(("at", "halves"), [(0, [2, 1, 2, 1]), (1, [2, 1, 2, 1]), (3, [2, 1, 1])])
async def test_only_the_poisonous_request_of_a_batch_fails(tmp_path: Path, at: int, halves: list[int]) -> None:
    served, session = gated(onnx_models.reshape_poison(), tmp_path, rows=8)

    def inputs(k: int) -> dict[str, np.ndarray]:
        return {"x": np.ones((1, 3), np.float32), "k": np.array([k], np.int64)}

    first = served.submit(inputs(3), None, FAR)
    await until(lambda: session.runs == [1])
    futures = [served.submit(inputs(7 if index == at else 3), None, FAR) for index in range(4)]
    session.gate.set()
    results = await asyncio.gather(*futures, return_exceptions=True)
    await first
    for index, result in enumerate(results):
        if index == at:
            assert isinstance(result, InferenceFailed)
        else:
            assert not isinstance(result, BaseException)
            assert result[0].tolist() == [[1, 1, 1]]
    assert session.runs == [1, 4, *halves]
    assert served._metrics.failures[Failure.BACKEND] == 1
    assert served._metrics.success == 4
    served.close()


async def test_values_that_the_model_refuses_fail_alone(tmp_path: Path) -> None:
    served = servable(onnx_models.gather(), tmp_path)
    futures = [served.submit({"ids": np.array([[i]], np.int64)}, None, FAR) for i in (1, 99, 2)]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(results[1], InvalidRequest)
    assert not isinstance(results[0], BaseException)
    assert results[0][0].tolist() == [[[2, 3]]]
    assert served._metrics.failures[Failure.OTHER] == 1
    served.close()


async def test_the_queue_is_bounded(blocked: tuple[Servable, Gated]) -> None:
    served, session = blocked
    futures = [served.submit(x(i), None, FAR) for i in range(6)]
    with pytest.raises(QueueFull) as refused:
        served.submit(x(9), None, FAR)
    assert refused.value.retry_after
    assert served._metrics.failures[Failure.REJECTED] == 1
    session.gate.set()
    await asyncio.gather(*futures)
    await served.submit(x(9), None, FAR)


async def test_a_cancelled_request_frees_its_place_and_never_runs(blocked: tuple[Servable, Gated]) -> None:
    served, session = blocked
    futures = [served.submit(x(i), None, FAR) for i in range(6)]
    futures[2].cancel()
    await until(lambda: served._metrics.pending == 5)
    extra = served.submit(x(7), None, FAR)
    session.gate.set()
    results = await asyncio.gather(*futures, extra, return_exceptions=True)
    assert isinstance(results[2], asyncio.CancelledError)
    assert not isinstance(results[6], BaseException)
    assert results[6][0][0, 0] == 7
    assert session.runs == [1, 4, 2]
    assert served._metrics.failures[Failure.CANCELED] == 1


async def test_a_request_cancelled_during_its_run_is_dropped(blocked: tuple[Servable, Gated]) -> None:
    served, session = blocked
    other = served.submit(x(1), None, FAR)
    await asyncio.sleep(0)
    work = next(iter(served._running)).works[0]
    assert isinstance(work, FutureWork)
    work.future.cancel()
    await until(lambda: served.in_flight == 1)
    session.gate.set()
    assert (await other)[0][0, 0] == 1
    assert served.in_flight == 0


async def test_requests_out_of_time_are_told_so(blocked: tuple[Servable, Gated]) -> None:
    """Both those that wait and those that a run holds too long."""
    served, session = blocked
    soon = time.monotonic() + 0.05
    waiting = served.submit(x(1), None, soon)
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(waiting, 5)
    assert served._metrics.pending == 0
    assert served._metrics.failures[Failure.REJECTED] == 1
    next(iter(served._running)).works[0].deadline = 0.0
    await until(lambda: served.in_flight == 0)
    session.gate.set()


async def test_a_request_that_comes_too_late_is_not_run(tmp_path: Path) -> None:
    served = servable(onnx_models.identity(), tmp_path)
    with pytest.raises(DeadlineExceeded):
        await served.submit(x(1), None, time.monotonic() - 1)
    assert served._metrics.executions == 0
    served.close()


async def test_drain_waits_for_what_is_under_way(blocked: tuple[Servable, Gated]) -> None:
    served, session = blocked
    future = served.submit(x(1), None, FAR)
    assert not await served.drain(0.05)
    with pytest.raises(Unavailable):
        served.submit(x(2), None, FAR)
    draining = asyncio.create_task(served.drain(10))
    await asyncio.sleep(0)
    session.gate.set()
    assert await draining
    assert (await future)[0][0, 0] == 1


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_close_tells_whoever_still_waits(tmp_path: Path, elsewhere: bool) -> None:
    metrics = Metrics()
    served, session = gated(onnx_models.identity(), tmp_path)
    served._registry = metrics
    served._metrics = metrics.hold("m", "1")
    futures = [served.submit(x(i), None, FAR) for i in range(3)]
    await until(lambda: session.runs == [1])
    session.gate.set() if elsewhere else None
    await asyncio.to_thread(served.close) if elsewhere else served.close()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert all(isinstance(result, Unavailable) for result in results[1:])
    session.gate.set()
    with pytest.raises(Unavailable):
        served.submit(x(1), None, FAR)
    assert b'model="m"' not in metrics.render()
    served.close()


@pytest.mark.parametrize(
    ("inputs", "outputs", "text"),
    [
        ({}, None, "the model takes"),
        ({"x": np.ones((1, 3), np.float64)}, None, "float64"),
        ({"x": np.ones((1, 4), np.float32)}, None, "does not fit"),
        ({"x": np.ones((0, 3), np.float32)}, None, "no rows"),
        ({"x": np.ones((1, 3), np.float32)}, ["z"], "no output 'z'"),
    ],
)
async def test_arrays_are_checked(
    tmp_path: Path, inputs: dict[str, np.ndarray], outputs: list[str] | None, text: str
) -> None:
    served = servable(onnx_models.identity(), tmp_path)
    with pytest.raises(InvalidRequest, match=text):
        served.submit(inputs, outputs, FAR)
    served.close()


async def test_models_that_must_not_be_batched_are_not(tmp_path: Path) -> None:
    for model in (onnx_models.cumsum_rows(), onnx_models.mean_of_all()):
        served = servable(model, tmp_path)
        results = await asyncio.gather(*(served.submit(x(1, 2), None, FAR) for _ in range(5)))
        assert all(np.array_equal(result[0], results[0][0]) for result in results)
        assert served._metrics.executions == 5
        served.close()


async def test_batching_can_be_switched_off(tmp_path: Path) -> None:
    served = servable(onnx_models.identity(), tmp_path, planned(batching=Batching(enabled=False)))
    await asyncio.gather(*(served.submit(x(i), None, FAR) for i in range(5)))
    assert served._metrics.executions == 5
    assert served.finding.why == "off: by configuration"
    served.close()
