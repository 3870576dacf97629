"""Requests with more rows than one run may hold."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from modelpier_server.errors import DeadlineExceeded, InferenceFailed
from modelpier_server.scheduler.work import FutureWork
from modelpier_server.telemetry import Failure
from support import onnx_models
from support.serving import gated, servable, threaded, until
from support.serving import planned as plan

FAR = float("inf")


def x(rows: int, start: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.arange(start, start + 3 * rows, dtype=np.float32).reshape(rows, 3)}


@pytest.mark.parametrize("rows", [5, 8, 9, 64, 65])
async def test_pieces_are_put_together_again(tmp_path: Path, rows: int) -> None:
    served = servable(onnx_models.add(), tmp_path)
    served.finding.max_rows = 4
    inputs = {"a": x(rows)["x"], "b": x(rows, 7)["x"]}
    total, difference = await served.submit(inputs, None, FAR)
    assert np.array_equal(total, inputs["a"] + inputs["b"])
    assert np.array_equal(difference, inputs["a"] - inputs["b"])
    metrics = served._metrics
    assert (metrics.success, metrics.rows, metrics.executions) == (1, rows, -(-rows // 4))
    assert (metrics.pending, served.in_flight) == (0, 0)
    assert sum(metrics.request_seconds.buckets) == 1
    served.close()


async def test_strings_are_put_together_again(tmp_path: Path) -> None:
    served = servable(onnx_models.identity("BYTES"), tmp_path)
    served.finding.max_rows = 2
    given = np.array([[f"{row}", "", "ü"] for row in range(5)], np.object_)
    assert np.array_equal((await served.submit({"x": given}, None, FAR))[0], given)
    served.close()


async def test_others_run_between_the_pieces(tmp_path: Path) -> None:
    """Whoever comes while a piece runs is answered before the piece after the next."""
    served, session = gated(onnx_models.identity(), tmp_path, rows=4)
    large = served.submit(x(16), None, FAR)
    await until(lambda: session.runs == [4])
    order: list[str] = []
    small = [served.submit(x(1), None, FAR) for _ in range(4)]
    for future in small:
        future.add_done_callback(lambda _: order.append(f"small after {len(session.runs)}"))
    session.gate.set()
    await asyncio.gather(large, *small)
    # The second piece had taken its place before they came.
    assert session.runs == [4, 4, 4, 4, 4]
    assert order == ["small after 4"] * 4 or order == ["small after 3"] * 4
    served.close()


async def test_pieces_run_side_by_side(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path, plan(instances=3), rows=4)
    large = served.submit(x(16), None, FAR)
    await until(lambda: session.runs == [4, 4, 4])
    session.gate.set()
    assert np.array_equal((await large)[0], x(16)["x"])
    served.close()


async def test_the_last_piece_shares_its_run(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path, rows=4)
    futures = [served.submit(x(6), None, FAR)]
    await until(lambda: session.runs == [4])
    futures += [served.submit(x(2, 100), None, FAR)]
    session.gate.set()
    results = await asyncio.gather(*futures)
    assert session.runs == [4, 4]
    assert np.array_equal(results[1][0], x(2, 100)["x"])
    served.close()


async def test_a_model_that_must_not_be_batched_runs_it_whole(tmp_path: Path) -> None:
    served = servable(onnx_models.cumsum_rows(), tmp_path)
    (result,) = await served.submit(x(100), None, FAR)
    assert np.allclose(result, np.cumsum(x(100)["x"], axis=0))
    assert served._metrics.executions == 1
    served.close()


async def test_a_piece_that_fails_fails_the_whole_and_nobody_else(tmp_path: Path) -> None:
    served, session = gated(onnx_models.reshape_poison(), tmp_path, rows=4)

    def inputs(rows: int, poison: int | None = None) -> dict[str, np.ndarray]:
        k = np.full(rows, 3, np.int64)
        if poison is not None:
            k[poison] = 7
        return {"x": np.ones((rows, 3), np.float32), "k": k}

    first = served.submit(inputs(1), None, FAR)
    await until(lambda: session.runs == [1])
    bad, good = served.submit(inputs(20, 5), None, FAR), served.submit(inputs(3), None, FAR)
    session.gate.set()
    results = await asyncio.gather(first, bad, good, return_exceptions=True)
    assert isinstance(results[1], InferenceFailed)
    assert len(results[2][0]) == 3  # type: ignore[index]
    await until(lambda: not served._running)
    assert len(session.runs) <= 5  # its last pieces were not run
    assert served._metrics.failures[Failure.BACKEND] == 1
    assert served._metrics.success == 2
    assert served.in_flight == 0
    served.close()


async def test_a_whole_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path, plan(instances=2), rows=4)
    large = served.submit(x(40), None, FAR)
    await until(lambda: session.runs == [4, 4])
    large.cancel()
    await until(lambda: served.in_flight == 0)
    assert served._metrics.pending == 0
    assert served._metrics.failures[Failure.CANCELED] == 1
    assert all(batch.control.aborted for batch in served._running if batch.control)
    session.gate.set()
    await until(lambda: not served._running)
    assert session.runs == [4, 4]
    served.close()


async def test_a_whole_out_of_time_is_told_so_once(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path, plan(instances=2), rows=4)
    with pytest.raises(DeadlineExceeded):
        await served.submit(x(40), None, time.monotonic() + 0.05)
    assert served._metrics.failures[Failure.REJECTED] == 1
    assert served.in_flight == 0
    session.gate.set()
    await until(lambda: not served._running)
    assert session.runs == [4, 4]
    served.close()


async def test_close_tells_the_whole(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path, plan(instances=2), rows=4)
    large = served.submit(x(40), None, FAR)
    await until(lambda: session.runs == [4, 4])
    served.close()
    await asyncio.gather(large, return_exceptions=True)
    assert served._metrics.failures[Failure.CANCELED] == 1
    session.gate.set()


async def test_pieces_that_do_not_fit_together_are_run_as_a_whole(tmp_path: Path) -> None:
    """The second size of this model's output follows from the values."""
    served = threaded(onnx_models.ranges(), tmp_path, rows=2)
    same = np.full((5, 1), 3, np.int64)
    assert (await served.submit({"k": same}, None, FAR))[0].shape == (5, 3)
    served.finding.max_rows = 2
    differ = np.array([[1], [1], [4], [4], [2]], np.int64)
    assert (await served.submit({"k": differ}, None, FAR))[0].shape == (5, 4)
    assert served._metrics.success == 2
    assert served.in_flight == 0
    served.close()


async def test_many_large_ones_count_once_each_in_the_queue(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path, rows=2)
    works = [FutureWork(x(9), None, FAR) for _ in range(5)]
    for work in works:
        served.enqueue(work)
    await until(lambda: session.runs == [2])
    assert served._metrics.pending == 5
    session.gate.set()
    await asyncio.gather(*(work.future for work in works))
    assert served._metrics.success == 5
    served.close()
