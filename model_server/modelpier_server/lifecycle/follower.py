"""Makes this server hold what the plan says: starts, pins, drops and unloads models, and publishes the catalog.

Level-based: `apply` compares the whole plan with all records, whatever came before. `plans` calls it with each newer
plan; on a laptop `process` calls it once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, Generic

from modelpier_server.contract import Failure, FailureReason, ModelState, Plan, PlannedModel, Role
from modelpier_server.errors import ModelError
from modelpier_server.lifecycle.board import Board, Record
from modelpier_server.lifecycle.bringup import Again, BringUp
from modelpier_server.lifecycle.catalog import Catalog, Entry
from modelpier_server.lifecycle.journal import Journal
from modelpier_server.lifecycle.parts import S, Tools
from modelpier_server.repository.retry import Stopped
from modelpier_server.runtime import Session

CANDIDATE_ATTEMPTS = 60
"""To fetch, in about a quarter of an hour: until whoever planned the candidate gives it up, nobody waits for it."""

log = logging.getLogger(__name__)


class Follower(Generic[S]):
    """`trusting`: nobody will pin digests (no Kubernetes), so what was loaded is served, and any failure of what is
    required is final.

    `drain`: seconds that requests in flight on a dropped model get.
    """

    def __init__(
        self,
        tools: Tools[S],
        catalog: Catalog[S],
        board: Board[S],
        *,
        trusting: bool,
        drain: float,
        again: Again | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.board = board
        self.fatal: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        """Done once this process can serve nothing that its plan requires and serves nothing else."""
        self._catalog = catalog
        self._trusting = trusting
        self._drain = drain
        self._journal = journal or Journal(None)
        self._mirror = tools.mirror
        again = again or Again(candidates=None if trusting else CANDIDATE_ATTEMPTS)
        self._bringup = BringUp(tools, self._changed, self._room, self._lost, again, journal=self._journal)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unloading: set[asyncio.Task[None]] = set()
        self._swept = -1
        self._planned = asyncio.Event()
        """Set, and made anew, with every change of who is wanted."""

    def apply(self, plan: Plan) -> None:
        """Returns at once; models come and go in tasks. Whoever calls has checked signature, owner and generation."""
        wanted = {model.revision: model for model in plan.models}
        self._journal.keep(plan.models, plan.generation)
        for record in [*self.board.records.values()]:
            model = wanted.get(record.planned.revision)
            if model is None or _another(record, model):
                self._drop(record)
        held, self.board.records = self.board.records, {}
        for revision, model in wanted.items():
            self.board.records[revision] = self._follow(held.get(revision), model)
        self.board.generation, self.board.plan_error = plan.generation, ""
        self._wake()
        self._publish()

    def _wake(self) -> None:
        self._planned.set()
        self._planned = asyncio.Event()

    def refuse(self, error: str) -> None:
        """A plan was offered that cannot be followed; the one that is held stays."""
        if error != self.board.plan_error:
            log.warning("plan refused", extra={"error": error, "held_generation": self.board.generation})
            self.board.plan_error = error
            self.board.changed()

    def drain(self) -> None:
        """The process goes down: unready from now on."""
        records = self.board.records.values()
        hanging = [r for r in records if r.servable is not None and r.servable.hung]
        self._journal.close([(r.planned, r.digest or "") for r in hanging])
        self._catalog.draining = True
        self._publish()

    async def close(self, seconds: float) -> None:
        """Unloads everything; the requests in flight have `seconds`."""
        self._journal.close()
        records = [*self.board.records.values()]
        self.board.records = {}
        for record in records:
            self._drop(record, seconds)
        self._mirror([])
        self._wake()
        if self._unloading:
            await asyncio.wait(self._unloading, timeout=seconds + 1.0)
        self._bringup.close()

    # -------------------------------------------------------------------------------------------- one model
    def _follow(self, record: Record[S] | None, model: PlannedModel) -> Record[S]:
        if record is None:
            record = Record(model)
            record.task = self._spawn(self._bringup.run(record))
        else:
            record.planned = model
            self._pin(record)
        return record

    def _pin(self, record: Record[S]) -> None:
        """Decides what a warm model may do: only bytes that the plan has pinned are served."""
        if record.state not in {ModelState.LOADED, ModelState.READY}:
            return
        pinned = record.planned.digest
        if pinned is not None and pinned != record.digest:
            text = f"digest: this server has loaded {record.digest}, but {pinned} is pinned: the model was overwritten"
            error = ModelError(FailureReason.DIGEST_MISMATCH, text)
            record.fail(error)
            record.task = self._spawn(self._bringup.unload(record, self._drain))
            return
        record.pinned = record.pinned or self._trusting or pinned is not None
        record.state = ModelState.READY if record.pinned else ModelState.LOADED

    def _drop(self, record: Record[S], drain: float | None = None) -> None:
        self.board.records.pop(record.planned.revision, None)
        record.drop()
        self.board.leaving.append(record)
        task = self._spawn(self._unload(record, self._drain if drain is None else drain))
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)

    def _lost(self, record: Record[S], session: Session, ended: str) -> None:
        """The process of a loaded model ended."""
        if record.session is not session or record.stop.is_set():
            return
        error = ModelError(FailureReason.MODEL_CRASHED, ended)
        record.task = self._spawn(self._after(record.task, self._bringup.crashed(record, error)))

    async def _after(self, task: asyncio.Task[None] | None, work: Awaitable[None]) -> None:
        if task is not None:
            await asyncio.wait({task})
        await work

    async def _unload(self, record: Record[S], drain: float) -> None:
        if record.task is not None:
            await asyncio.wait({record.task})
        await self._bringup.unload(record, drain)
        record.state = ModelState.STOPPED
        self.board.leaving.remove(record)
        log.info("model unloaded", extra={"model": record.planned.name, "revision": record.planned.revision})
        self._publish()

    async def _room(self, record: Record[S]) -> None:
        """Waits for what was dropped before, because old and new may not fit side by side.

        A dropped record may not wait here: two could wait for each other.
        """
        if record.stop.is_set():
            raise Stopped
        await self._after_required(record)
        if self._unloading:
            await asyncio.wait({*self._unloading})

    async def _after_required(self, record: Record[S]) -> None:
        """A candidate or shadow that hangs, or takes the process down, must not keep production from coming up."""
        while record.planned.role is not Role.REQUIRED and (coming := self._required_tasks()):
            # A plan that comes meanwhile may drop it, or change who is required.
            planned = asyncio.ensure_future(self._planned.wait())
            await asyncio.wait({*coming, planned}, return_when=asyncio.FIRST_COMPLETED)
            planned.cancel()
            if record.stop.is_set():
                raise Stopped

    def _required_tasks(self) -> list[asyncio.Task[None]]:
        """Of those that are still being brought up."""
        required = [r for r in self.board.records.values() if r.planned.role is Role.REQUIRED and not r.settled]
        return [r.task for r in required if r.task is not None and not r.task.done()]

    # -------------------------------------------------------------------------------------------- everybody
    def _changed(self, record: Record[S]) -> None:
        self._pin(record)
        self._log(record)
        self._publish()

    def _publish(self) -> None:
        records = [*self.board.records.values()]
        ready = [r for r in records if r.state is ModelState.READY]
        held = [(r.planned, r.servable) for r in ready if r.servable is not None]
        entries = [Entry(*pair) for pair in held if pair[0].role is not Role.SHADOW]
        # The catalog is what callers see: of shadows it knows nothing.
        seen = [r for r in (*records, *self.board.leaving) if r.planned.role is not Role.SHADOW]
        missing = [r for r in records if r.planned.role is Role.REQUIRED and r.state is not ModelState.READY]
        self._catalog.publish(
            entries,
            [r.planned for r in records if r.planned.role is not Role.SHADOW],
            [r.report() for r in seen],
            complete=bool(entries) and not missing,
        )
        self._mirror(held)
        self.board.ready = self._catalog.ready
        self.board.changed()
        self._judge(records)
        self._tidy(records)

    def _judge(self, records: list[Record[S]]) -> None:
        """Settles whether this process still has a purpose."""
        failed = [r for r in records if r.state is ModelState.FAILED]
        final = [r for r in failed if r.planned.role is Role.REQUIRED]
        alone = len(failed) == len(records) and not self.board.leaving
        if final and (self._trusting or alone) and not self.fatal.done() and not self._catalog.draining:
            record = final[0]
            assert record.reason is not None
            self.fatal.set_result(Failure(record.reason, record.message, record.planned.revision))

    def _tidy(self, records: list[Record[S]]) -> None:
        """Frees cached models that nobody uses, once per plan and only when everything has come to rest.

        A laptop's cache is its owner's: it is left alone.
        """
        rest = not self.board.leaving and all(r.settled for r in records)
        if rest and records and not self._trusting and self._swept != self.board.generation:
            self._swept = self.board.generation
            self._spawn(self._bringup.sweep())

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)
        return task

    def _log(self, record: Record[S]) -> None:
        about = {
            "model": record.planned.name,
            "revision": record.planned.revision,
            "version": record.planned.version,
            "state": record.state.value,
        }
        if record.state is ModelState.FAILED and self._trusting and record.planned.role is Role.REQUIRED:
            return  # the process ends, and says why
        if record.reason is not None:
            log.warning("model failed", extra={**about, "reason": record.reason.value, "error": record.message})
        else:
            level = logging.INFO if record.settled else logging.DEBUG
            log.log(level, "model %s", record.state.value, extra={**about, "digest": record.digest, **record.timings})


def _another(record: Record[S], model: PlannedModel) -> bool:
    """Whether `model` needs another load than the one that `record` stands for."""

    def load(planned: PlannedModel) -> PlannedModel:
        return replace(planned, weight=0, digest=None, role=Role.REQUIRED)

    if load(record.planned) != load(model):
        return True
    # A failed model is tried again when anything but its share of traffic was changed for it.
    return record.state is ModelState.FAILED and replace(record.planned, weight=0) != replace(model, weight=0)
