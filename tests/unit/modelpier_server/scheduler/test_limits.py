"""Who is refused, who goes first, and who waits for company."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from modelpier_server.contract import Batching, Limits
from modelpier_server.errors import QueueFull
from modelpier_server.scheduler import Servable
from modelpier_server.scheduler.forecast import Ahead, Forecast
from modelpier_server.scheduler.work import FutureWork
from modelpier_server.telemetry import Failure
from support import onnx_models
from support.serving import Client, Gated, gated, planned, running, servable, tensor, until

FAR = float("inf")


def x(value: float = 0.0, rows: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.full((rows, 3), value, np.float32)}


# ---------------------------------------------------------------------------------------------- the forecast
def test_a_wait_is_what_runs_and_what_waits() -> None:
    forecast = Forecast()
    assert forecast.wait(Ahead(1000, 10, ((10, 0.0),)), 1) == 0.0  # nothing is known
    for _ in range(50):
        forecast.ran(64, 2.0)
    assert forecast.wait(Ahead(0, 64), 1) == 0.0
    assert forecast.wait(Ahead(0, 64, ((64, 0.5),)), 1) == pytest.approx(1.5)
    assert forecast.wait(Ahead(0, 64, ((64, 9.0),)), 1) == 0.0
    assert forecast.wait(Ahead(640, 64, ((64, 0.5),)), 1) == pytest.approx(21.5)
    assert forecast.wait(Ahead(640, 64, ((64, 0.5), (64, 1.0))), 2) == pytest.approx(11.25)
    assert forecast.longest == 2.0


def test_the_forecast_follows_what_runs_cost_now() -> None:
    forecast = Forecast()
    forecast.learn(64, 1.0)
    forecast.learn(64, 0.5)
    assert forecast.wait(Ahead(64, 64), 1) == pytest.approx(0.5)
    for _ in range(30):
        forecast.ran(64, 3.0)
    assert forecast.wait(Ahead(64, 64), 1) == pytest.approx(3.0, rel=0.01)


# ---------------------------------------------------------------------------------------------- predicted waits
@pytest.fixture
async def busy(tmp_path: Path) -> AsyncIterator[tuple[Servable, Gated]]:
    """One run at a time, of one row, known to take 2 s; one is under way."""
    plan = planned(instances=1, limits=Limits(max_queue_wait=5.0))
    served, session = gated(onnx_models.identity(), tmp_path, plan, rows=1)
    for _ in range(50):
        served._forecast.ran(3, 2.0)
    first = served.submit(x(), None, FAR)
    await until(lambda: session.runs == [1])
    yield served, session
    session.gate.set()
    await asyncio.gather(first, return_exceptions=True)
    served.close()


async def test_who_would_wait_too_long_is_refused_at_once(busy: tuple[Servable, Gated]) -> None:
    served, session = busy
    waiting = [served.submit(x(), None, FAR) for _ in range(2)]
    with pytest.raises(QueueFull, match="a wait of") as error:
        served.submit(x(), None, FAR)
    assert 0 < error.value.retry_after <= 1.1  # type: ignore[operator]
    assert served._metrics.failures[Failure.REJECTED] == 1
    session.gate.set()
    await asyncio.gather(*waiting)
    await served.submit(x(), None, FAR)


async def test_a_requests_own_time_counts(busy: tuple[Servable, Gated]) -> None:
    served, session = busy
    with pytest.raises(QueueFull):
        served.submit(x(), None, time.monotonic() + 0.5)
    future = served.submit(x(), None, time.monotonic() + 60)
    session.gate.set()
    await future


async def test_rows_of_large_requests_that_are_not_cut_yet_count(busy: tuple[Servable, Gated]) -> None:
    served, session = busy
    large = served.submit(x(rows=3), None, FAR)
    with pytest.raises(QueueFull):
        served.submit(x(), None, FAR)
    session.gate.set()
    assert (await large)[0].shape == (3, 3)
    assert not served._splits


async def test_an_idle_model_takes_whatever_comes(busy: tuple[Servable, Gated]) -> None:
    """So a prediction that has become wrong cures itself."""
    served, session = busy
    session.gate.set()
    await until(lambda: not served._running)
    for _ in range(50):
        served._forecast.ran(3, 1000.0)
    for _ in range(40):
        await served.submit(x(), None, time.monotonic() + 5)
    assert served._forecast.wait(Ahead(3, 3), 1) < 5


async def test_a_full_queue_says_when_to_come_again(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path, planned(instances=1, limits=Limits(max_queue=4)), rows=1)
    first = served.submit(x(), None, FAR)
    await until(lambda: session.runs == [1])
    for _ in range(50):
        served._forecast.ran(3, 3.0)
    futures = [served.submit(x(), None, FAR) for _ in range(4)]
    with pytest.raises(QueueFull, match="4 requests wait") as error:
        served.submit(x(), None, FAR)
    assert 11 < error.value.retry_after <= 15  # type: ignore[operator]
    session.gate.set()
    await asyncio.gather(first, *futures)
    served.close()


# ---------------------------------------------------------------------------------------------- priorities
@pytest.fixture
async def levels(tmp_path: Path) -> AsyncIterator[tuple[Servable, Gated]]:
    """Three levels, one row per run, one request under way; a level is worth 10 s."""
    plan = planned(instances=1, limits=Limits(priority_levels=3, request_timeout=60.0, max_queue=6))
    served, session = gated(onnx_models.identity(), tmp_path, plan, rows=1)
    first = served.submit(x(), None, FAR)
    await until(lambda: session.runs == [1])
    yield served, session
    session.gate.set()
    await asyncio.gather(first, return_exceptions=True)
    served.close()


def ask(served: Servable, priority: int, order: list[int], mark: int | None = None) -> FutureWork:
    work = FutureWork(x(), None, FAR, priority)
    work.future.add_done_callback(
        lambda f: order.append(priority if mark is None else mark) if not f.exception() else 0
    )
    served.enqueue(work)
    return work


async def test_higher_levels_go_first(levels: tuple[Servable, Gated]) -> None:
    served, session = levels
    order: list[int] = []
    works = [ask(served, priority, order) for priority in (3, 2, 0, 1, 3, 1)]
    session.gate.set()
    await asyncio.gather(*(work.future for work in works))
    assert order == [1, 1, 2, 0, 3, 3]


async def test_levels_that_do_not_exist_are_the_default(levels: tuple[Servable, Gated]) -> None:
    served, session = levels
    order: list[int] = []
    works = [ask(served, priority, order, mark) for mark, priority in enumerate((99, 2, 3, 0))]
    session.gate.set()
    await asyncio.gather(*(work.future for work in works))
    assert order == [0, 1, 3, 2]


async def test_nobody_is_overtaken_for_ever(levels: tuple[Servable, Gated]) -> None:
    """What has waited for 20 s at the last of three levels goes before the first level's newest."""
    served, session = levels
    order: list[int] = []
    old = FutureWork(x(), None, FAR, 3)
    old.arrived -= 21_000_000_000
    old.order = old.arrived
    old.future.add_done_callback(lambda _: order.append(3))
    works = [ask(served, 1, order), old, ask(served, 1, order)]
    served.enqueue(old)
    session.gate.set()
    await asyncio.gather(*(work.future for work in works))
    assert order == [3, 1, 1]


async def test_a_full_queue_makes_room_for_who_goes_first(levels: tuple[Servable, Gated]) -> None:
    served, session = levels
    order: list[int] = []
    works = [ask(served, priority, order) for priority in (2, 3, 3, 2, 3, 3)]
    with pytest.raises(QueueFull):
        ask(served, 3, order)
    works.append(ask(served, 1, order))
    results = await asyncio.gather(works[5].future, return_exceptions=True)
    assert isinstance(results[0], QueueFull)
    session.gate.set()
    await asyncio.gather(*(work.future for work in works), return_exceptions=True)
    assert order == [1, 2, 2, 3, 3, 3]
    assert served._metrics.failures[Failure.REJECTED] == 2
    assert served.in_flight == 0


async def test_one_level_knows_no_priorities(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path, rows=1)
    first = served.submit(x(), None, FAR)
    await until(lambda: session.runs == [1])
    order: list[int] = []
    works = [ask(served, priority, order) for priority in (3, 1, 2)]
    session.gate.set()
    await asyncio.gather(first, *(work.future for work in works))
    assert order == [3, 1, 2]
    served.close()


# ---------------------------------------------------------------------------------------------- the optional delay
async def test_a_request_waits_for_others_for_the_delay(tmp_path: Path) -> None:
    served = servable(onnx_models.mlp(), tmp_path, planned(batching=Batching(max_delay=0.05)))
    inputs = {"x": np.zeros((1, 32), np.float32)}
    start = time.monotonic()
    first = served.submit(inputs, None, FAR)
    await asyncio.sleep(0.005)
    assert not first.done()
    second = served.submit(inputs, None, FAR)
    await asyncio.gather(first, second)
    assert served._metrics.executions == 1
    assert time.monotonic() - start >= 0.05
    served.close()


async def test_a_full_run_waits_for_nobody(tmp_path: Path) -> None:
    served = servable(onnx_models.mlp(), tmp_path, planned(batching=Batching(max_delay=30.0)))
    full = served.finding.max_rows
    inputs = {"x": np.zeros((1, 32), np.float32)}
    futures = [served.submit(inputs, None, FAR) for _ in range(full)]
    await asyncio.wait_for(asyncio.gather(*futures), 10)
    assert served._metrics.executions == 1
    served.close()


async def test_a_delay_never_uses_up_a_requests_time(tmp_path: Path) -> None:
    served = servable(onnx_models.mlp(), tmp_path, planned(batching=Batching(max_delay=30.0)))
    await served.submit({"x": np.zeros((1, 32), np.float32)}, None, time.monotonic() + 2.0)
    served.close()


async def test_models_without_batches_wait_for_nobody(tmp_path: Path) -> None:
    served = servable(onnx_models.cumsum_rows(), tmp_path, planned(batching=Batching(max_delay=30.0)))
    await asyncio.wait_for(served.submit(x(), None, FAR), 10)
    served.close()


# ---------------------------------------------------------------------------------------------- as clients say it
@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[tuple[Client, Servable, Gated]]:
    served, session = gated(onnx_models.identity(), tmp_path, planned(instances=1, limits=Limits(priority_levels=2)))
    async with running(served) as state:
        yield await state.client(), served, session
        session.gate.set()


async def test_timeout_is_in_microseconds(client: tuple[Client, Servable, Gated]) -> None:
    http, *_ = client
    start = time.monotonic()
    answer = await http.infer({"inputs": [tensor([1, 2, 3])], "parameters": {"timeout": 100_000}})
    assert answer.status == 504
    assert 0.1 <= time.monotonic() - start < 10


async def test_a_timeout_beyond_the_models_own_changes_nothing(client: tuple[Client, Servable, Gated]) -> None:
    http, served, session = client
    message = {"inputs": [tensor([1, 2, 3])], "parameters": {"timeout": 10**12, "priority": 1}}
    asking = asyncio.create_task(http.infer(message))
    await until(lambda: served._running)
    (batch,) = served._running
    assert batch.works[0].deadline - time.monotonic() <= 60
    assert batch.works[0].priority == 1
    session.gate.set()
    assert (await asking).status == 200


@pytest.mark.parametrize("parameters", [{"timeout": -1}, {"timeout": "1"}, {"priority": -1}, {"priority": 1.5}])
async def test_what_is_no_priority_or_timeout(
    client: tuple[Client, Servable, Gated], parameters: dict[str, object]
) -> None:
    http, *_ = client
    answer = await http.infer({"inputs": [tensor([1, 2, 3])], "parameters": parameters})
    assert answer.status == 400
    assert f"parameters.{next(iter(parameters))}" in answer.error


async def test_none_and_zero_mean_nothing(client: tuple[Client, Servable, Gated]) -> None:
    http, _, session = client
    session.gate.set()
    for nothing in (0, None):
        parameters = {"timeout": nothing, "priority": nothing}
        assert (await http.infer({"inputs": [tensor([1, 2, 3])], "parameters": parameters})).status == 200
