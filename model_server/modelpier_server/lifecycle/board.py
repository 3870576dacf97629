"""How far each planned model has come, and the report of it that the operator reads and waits on."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Generic

from modelpier_server.contract import FailureReason, ModelReport, ModelState, PlannedModel, Report
from modelpier_server.errors import ModelError
from modelpier_server.lifecycle.parts import S
from modelpier_server.repository.fetch import Fetched
from modelpier_server.runtime import Session

LONGEST_MESSAGE = 1000


@dataclass(eq=False)
class Record(Generic[S]):
    """One planned model in this server. Only the event loop changes it."""

    planned: PlannedModel
    state: ModelState = ModelState.PENDING
    digest: str | None = None
    size_bytes: int = 0
    fetched: Fetched | None = None
    """What it keeps in use in the repository."""
    session: Session | None = None
    servable: S | None = None
    pinned: bool = False
    """A plan has pinned the digest that was loaded."""
    reason: FailureReason | None = None
    message: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    crashes: list[float] = field(default_factory=list)
    """When its process ended by itself, in seconds of the event loop."""
    task: asyncio.Task[None] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the model is no longer wanted: ends a download, and a load in a process of its own."""
    dropped: asyncio.Event = field(default_factory=asyncio.Event)
    """The same for who waits on the event loop."""

    @property
    def settled(self) -> bool:
        return self.state in {ModelState.LOADED, ModelState.READY, ModelState.FAILED, ModelState.STOPPED}

    def drop(self) -> None:
        self.state = ModelState.DRAINING
        self.stop.set()
        self.dropped.set()

    def fail(self, error: ModelError) -> None:
        self.state, self.reason, self.message = ModelState.FAILED, error.reason, str(error)[:LONGEST_MESSAGE]

    def report(self) -> ModelReport:
        return ModelReport(
            name=self.planned.name,
            revision=self.planned.revision,
            version=self.planned.version,
            state=self.state,
            digest=self.digest,
            provider=self.session.provider if self.session else None,
            reason=self.reason,
            message=self.message,
            timings=dict(self.timings),
            size_bytes=self.size_bytes,
            inputs=self.session.inputs if self.session else (),
            outputs=self.session.outputs if self.session else (),
            batching=self.servable.batching if self.servable else "",
            shadow=self.servable.compared if self.servable else (),
        )


class Board(Generic[S]):
    """All records by revision, and a serial that grows with every change."""

    MOST_WAITERS = 64

    def __init__(self) -> None:
        self.records: dict[str, Record[S]] = {}
        self.leaving: list[Record[S]] = []
        """Dropped from the plan and not yet unloaded."""
        self.generation = 0
        self.plan_error = ""
        self.ready = False
        self.serial = 1
        self._waiters: set[asyncio.Future[None]] = set()

    def report(self) -> Report:
        models = tuple(r.report() for r in (*self.records.values(), *self.leaving))
        return Report(self.serial, self.ready, self.generation, self.plan_error, models)

    def changed(self) -> None:
        self.serial += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait(self, after: int, seconds: float) -> None:
        """Returns once the serial is greater than `after`, or the time is over, or too many wait already."""
        deadline = asyncio.get_running_loop().time() + seconds
        while self.serial <= after and len(self._waiters) < self.MOST_WAITERS:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await asyncio.wait_for(waiter, left)
            except TimeoutError:
                return
            finally:
                self._waiters.discard(waiter)
