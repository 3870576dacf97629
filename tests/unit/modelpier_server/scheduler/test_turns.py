"""Several models on one event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from modelpier_server.contract import Batching, Limits
from modelpier_server.scheduler import Servable, Turns, placement
from modelpier_server.scheduler import turns as module
from modelpier_server.telemetry import Metrics
from support import onnx_models
from support.serving import planned, servable, threaded, until

FAR = float("inf")
X = {"x": np.ones((1, 3), np.float32)}
ONE_BY_ONE = {"batching": Batching(enabled=False), "limits": Limits(max_queue=100_000)}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is today: the short models' runs are taken for short."""
    monkeypatch.setattr(placement, "LOOP_LIMIT", float("inf"))


def pair(folder: Path) -> tuple[Servable, Servable]:
    """Two short models without batches: as many runs as requests, all on the loop."""
    turns = Turns()
    made = [servable(onnx_models.identity(), folder, planned(name, **ONE_BY_ONE), turns=turns) for name in ("a", "b")]
    return made[0], made[1]


@pytest.mark.usefixtures("short")
async def test_a_flood_does_not_keep_another_model_waiting(tmp_path: Path) -> None:
    flooded, other = pair(tmp_path)
    flood = [flooded.submit(X, None, FAR) for _ in range(20_000)]
    await asyncio.gather(*(other.submit(X, None, FAR) for _ in range(10)))
    assert flooded._metrics.executions < 4_000
    await asyncio.gather(*flood)
    assert not flooded._runners
    for served in (flooded, other):
        served.close()


@pytest.mark.usefixtures("short")
async def test_a_flood_does_not_keep_the_loop_from_its_sockets(tmp_path: Path) -> None:
    flooded, other = pair(tmp_path)
    flood = [flooded.submit(X, None, FAR) for _ in range(20_000)]
    iterations = 0
    while not all(future.done() for future in flood[-10:]):
        iterations += 1
        await asyncio.sleep(0)
    assert iterations > 10
    for served in (flooded, other):
        served.close()


@pytest.mark.usefixtures("short")
async def test_a_split_request_does_not_keep_another_model_waiting(tmp_path: Path) -> None:
    """Each piece puts the next one into the queue while the model has its turn."""
    split, other = pair(tmp_path)
    split.finding.max_rows = 1
    large = split.submit({"x": np.ones((20_000, 3), np.float32)}, None, FAR)
    await until(lambda: split._metrics.executions > 4_000)
    for _ in range(5):
        before = split._metrics.executions
        await other.submit(X, None, FAR)
        assert split._metrics.executions - before < 1_000
    assert not large.done()
    await large
    for served in (split, other):
        served.close()


class Spender:
    """A member that always wants more, and spends what a turn gives."""

    def __init__(self, cost: int, ticks: list[int]) -> None:
        self.cost, self.ticks, self.credit, self.spent = cost, ticks, 0, 0

    def turn(self, quantum: int) -> bool:
        self.credit += quantum
        while self.credit > 0 and self.spent < 40_000_000:
            self.ticks[0] += self.cost
            self.credit -= self.cost
            self.spent += self.cost
        return self.spent < 40_000_000


async def test_models_get_the_same_time_whatever_their_runs_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = [0]
    monkeypatch.setattr(module, "_clock", lambda: ticks[0])
    turns, loop = Turns(), asyncio.get_running_loop()
    members = [Spender(cost, ticks) for cost in (1_000, 79_000, 900_000)]
    for member in members:
        turns.ask(member, loop)
    seen = 0
    while all(member.spent < 30_000_000 for member in members):
        await asyncio.sleep(0)
        shares = [member.spent for member in members]
        assert max(shares) - min(shares) <= 900_000 + 2 * module.QUANTUM_NS
        seen += 1
    assert seen > 20


async def test_a_member_that_fails_ends_nobody_elses_turn(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def turn(self, quantum: int) -> bool:
            raise ValueError("a mistake")

    turns, loop, ticks = Turns(), asyncio.get_running_loop(), [0]
    other = Spender(1_000_000, ticks)
    turns.ask(Broken(), loop)
    turns.ask(other, loop)
    await until(lambda: other.spent >= 40_000_000)
    assert "a model's turn failed" in caplog.text
    turns.ask(Spender(1, ticks), loop)
    await asyncio.sleep(0)


async def test_a_slow_model_does_not_keep_a_short_one_from_the_loop(tmp_path: Path) -> None:
    """All runners of the slow one are busy for seconds; the short one is answered meanwhile."""
    turns = Turns()
    slow = threaded(onnx_models.counting(), tmp_path, planned("slow", instances=2))
    slow._turns = turns
    short = servable(onnx_models.identity(), tmp_path, planned("short"), Metrics(), turns)
    endless: dict[str, np.ndarray] = {"x": np.zeros((1, 3), np.float32), "k": np.array([1 << 62], np.int64)}
    stuck = [slow.submit(endless, None, FAR) for _ in range(10)]
    await until(lambda: len(slow._running) == 2)
    for _ in range(50):
        await short.submit(X, None, FAR)
    assert not any(future.done() for future in stuck)
    slow.close()
    await asyncio.gather(*stuck, return_exceptions=True)
    short.close()
