"""A follower over fakes: fetching and loading are steps that the test lets through, or makes fail, one by one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest

from modelpier_server.contract import Comparison, ModelReport, ModelState, Options, Plan, PlannedModel, TensorSpec
from modelpier_server.errors import ModelError
from modelpier_server.lifecycle.board import Board
from modelpier_server.lifecycle.bringup import Again
from modelpier_server.lifecycle.catalog import Catalog
from modelpier_server.lifecycle.follower import Follower
from modelpier_server.lifecycle.marked import Marked
from modelpier_server.lifecycle.parts import Tools
from modelpier_server.repository.fetch import Fetched
from modelpier_server.repository.retry import Stopped
from modelpier_server.runtime import Control, Session
from modelpier_server.runtime.tensors import Axes

DIGEST = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"


@dataclass
class FakeSession:
    closed: bool = False
    inputs: tuple[TensorSpec, ...] = (TensorSpec("x", "FP32", (-1, 3)),)
    outputs: tuple[TensorSpec, ...] = ()
    provider: str = "CPUExecutionProvider"
    lost: Future[str] | None = None
    axes: Mapping[str, Axes] = field(default_factory=dict)
    instances: int = 1
    caller_only: bool = False
    on_loop: bool = False
    joins: bool = False

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str], control: Control | None = None
    ) -> list[npt.NDArray[Any]]:
        raise AssertionError("nothing is run in these tests")

    def prepare(self, most: int) -> None:
        raise AssertionError("nothing is run in these tests")

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeServable:
    session: FakeSession
    planned: PlannedModel
    world: World
    in_flight: int = 0
    hung: bool = False
    batching: str = ""
    compared: tuple[Comparison, ...] = ()
    closed: bool = False
    drained: float | None = None

    def warm_up(self) -> None:
        if self.world.ends_in_warm_up:
            self.world.ends_in_warm_up -= 1
            assert self.session.lost is not None
            self.session.lost.set_result("the model's process was ended by SIGSEGV")
        self.world.act("warm", self.planned)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - the scheduler's signature
        self.drained = timeout
        async with asyncio.timeout(5):
            while self.in_flight:  # noqa: ASYNC110 - tests set it as a plain number
                await asyncio.sleep(0.001)

    def close(self) -> None:
        self.closed = True
        self.world.log.append(("close", self.planned.revision))
        self.session.close()


@dataclass
class World:
    digests: dict[str, str] = field(default_factory=dict)
    """By uri; others are DIGEST."""
    faults: dict[tuple[str, str], list[Exception]] = field(default_factory=dict)
    """By (step, revision): raised one after the other."""
    holds: dict[tuple[str, str], threading.Event] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    made: list[FakeServable] = field(default_factory=list)
    now: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)
    mirrored: list[Sequence[tuple[PlannedModel, FakeServable]]] = field(default_factory=list)
    """All that was ready, after each change."""
    sweeps: int = 0
    ends_in_warm_up: int = 0
    """So many warm-ups from now on end the model's own process."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def act(self, step: str, planned: PlannedModel, stop: threading.Event | None = None) -> None:
        with self.lock:
            self.log.append((step, planned.revision))
            self.now[step] = self.now.get(step, 0) + 1
            self.most[step] = max(self.most.get(step, 0), self.now[step])
        try:
            if hold := self.holds.get((step, planned.revision)):
                while not hold.wait(0.005):
                    if stop is not None and stop.is_set():
                        raise Stopped
            if faults := self.faults.get((step, planned.revision)):
                raise faults.pop(0)
        finally:
            with self.lock:
                self.now[step] -= 1

    def hold(self, step: str, revision: str) -> threading.Event:
        return self.holds.setdefault((step, revision), threading.Event())

    def tools(self) -> Tools[FakeServable]:
        planned_of: dict[Path, PlannedModel] = {}

        def fetch(planned: PlannedModel, stop: threading.Event) -> Fetched:
            self.act("fetch", planned, stop)
            path = Path(planned.uri)
            planned_of[path] = planned
            return Fetched(path, self.digests.get(planned.uri, DIGEST), 123)

        def load(path: Path, options: Options, stop: threading.Event, _digest: str) -> FakeSession:
            self.act("load", planned_of[path], stop if options.isolated else None)
            return FakeSession(lost=Future() if options.isolated else None)

        def serve(session: Session, planned: PlannedModel) -> FakeServable:
            inner = session._session if isinstance(session, Marked) else session
            assert isinstance(inner, FakeSession)
            self.made.append(FakeServable(inner, planned, self))
            return self.made[-1]

        def sweep() -> None:
            self.sweeps += 1

        return Tools(fetch, load, serve, self.mirrored.append, self.released.append, sweep)


class Bench:
    def __init__(self, world: World, *, trusting: bool = False) -> None:
        self.world = world
        self.catalog: Catalog[FakeServable] = Catalog()
        self.board: Board[FakeServable] = Board()
        self.follower = Follower(
            world.tools(),
            self.catalog,
            self.board,
            trusting=trusting,
            drain=2.0,
            again=Again(3, 0.001, 0.002, candidates=5),
        )
        self.generation = 0

    def apply(self, *models: PlannedModel) -> None:
        self.generation += 1
        self.follower.apply(Plan("owner", self.generation, models))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                serial = self.board.serial
                await self.board.wait(serial, 0.02)

    async def reach(self, **states: ModelState) -> None:
        """Waits until the models (by revision) are in these states."""
        await self.until(lambda: all(self.state(r) is s for r, s in states.items()))

    def state(self, revision: str) -> ModelState | None:
        return next((m.state for m in self.board.report().models if m.revision == revision), None)

    def report(self, revision: str) -> ModelReport:
        return next(m for m in self.board.report().models if m.revision == revision)


def model(revision: str = "a", digest: str | None = DIGEST, **fields: Any) -> PlannedModel:
    base = {"name": "m", "version": revision, "uri": f"/{revision}.onnx"}
    return PlannedModel(revision=revision, digest=digest, **{**base, **fields})


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def bench(world: World) -> AsyncIterator[Bench]:
    made = Bench(world)
    yield made
    for hold in world.holds.values():
        hold.set()
    await made.follower.close(2.0)


@pytest.fixture
async def laptop(world: World) -> AsyncIterator[Bench]:
    made = Bench(world, trusting=True)
    yield made
    await made.follower.close(2.0)


__all__ = ["Bench", "ModelError", "World", "model"]
