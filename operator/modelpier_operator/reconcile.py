"""One pass over one ModelDeployment: observe, judge, apply, tell, status; and the workers that take keys from a queue.

A pass is given a name and nothing else, reads everything from caches and enforces everything: it may be cut off at any
point and be repeated from the start. Started by `process` once this process leads and the caches are complete.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from modelpier_operator.cluster import errors
from modelpier_operator.cluster.apply import Applied, Applier, OwnerGoneError
from modelpier_operator.cluster.caches import Caches
from modelpier_operator.cluster.client import Api
from modelpier_operator.cluster.events import EventWriter
from modelpier_operator.cluster.kinds import Key
from modelpier_operator.cluster.observe import observe, owner_key
from modelpier_operator.cluster.queue import Queue
from modelpier_operator.cluster.reports import ReportSource
from modelpier_operator.cluster.status import StatusWriter
from modelpier_operator.decide.facts import Manifest, Observed, Outcome, Problem
from modelpier_operator.settings import PlanKeys, Settings
from modelpier_operator.telemetry import Telemetry

log = logging.getLogger(__name__)

Judge = Callable[[Observed, Settings, PlanKeys, datetime], Outcome]
ROUNDS = 4
"""Looks at the outcome of one's own writes within a pass: the status tells of the last one."""


def wall_clock() -> datetime:
    return datetime.now(UTC)


class Reconciler:
    def __init__(
        self,
        api: Api,
        caches: Caches,
        reports: ReportSource,
        queue: Queue,
        *,
        judge: Judge,
        settings: Settings,
        keys: PlanKeys,
        telemetry: Telemetry,
        may_write: Callable[[], Awaitable[object]],
        now: Callable[[], datetime] = wall_clock,
    ) -> None:
        """`may_write` waits until writes may start again, for ever when this process will not lead any more."""
        self._caches, self._reports, self._queue = caches, reports, queue
        self._judge, self._settings, self._keys, self._now = judge, settings, keys, now
        self._telemetry, self._may_write = telemetry, may_write
        self._applier = Applier(api, caches, telemetry)
        self._events = EventWriter(api)
        self._status = StatusWriter(api, caches.deployments)
        self._problems: dict[Key, tuple[Problem, ...]] = {}

    async def work(self) -> None:
        """Takes keys for ever. A write that may not start now only interrupts: a renewal of the lease that comes late,
        but in time, lets this process go on leading, and it must then go on working as well.
        """
        while True:
            key = await self._queue.get()
            try:
                await self._pass(key)
            except errors.NotLeaderError as error:
                log.info("%s/%s waits for the lease: %s", *key, error)
                self._queue.add(key)
                interrupted = True
            else:
                interrupted = False
            finally:
                self._queue.done(key)
            if interrupted:
                await self._may_write()

    async def _pass(self, key: Key) -> None:
        begin = time.perf_counter()
        result = "error"
        try:
            await self.reconcile(key)
            result = "ok"
        except OwnerGoneError as error:
            log.info("%s", error)
            result = "gone"
        except errors.ConflictError as error:
            # The caches were behind: the watch brings what we missed, and the key with it.
            log.info("%s/%s: %s", *key, error)
            self._queue.failed(key)
            result = "conflict"
        except errors.ApiError as error:
            log.warning("%s/%s: %s", *key, error)
            self._queue.failed(key, error.retry_after or 0.0)
        except errors.NotLeaderError:
            result = "not_leader"
            raise
        except Exception:
            # The edge: a defect that one ModelDeployment brings to light must not stop the others.
            log.exception("%s/%s: the pass failed", *key)
            self._queue.failed(key)
        finally:
            self._telemetry.reconciles.add(result)
            self._telemetry.reconcile_seconds.observe(time.perf_counter() - begin)

    async def reconcile(self, key: Key) -> None:
        """Raises ApiError, OwnerGoneError, NotLeaderError."""
        md = self._caches.deployments.get(key)
        if md is None or md["metadata"].get("deletionTimestamp"):
            self._forget(key)
            return
        outcome, applied, settled = await self._settle(key, md)
        md = self._caches.deployments.get(key)
        if md is None:
            self._forget(key)
            return
        await self._events.write(md, outcome.tidings, self._now())
        await self._status.write(md, outcome.status)
        self._attend(key, md, outcome)
        if applied.problems or applied.waiting or not settled:
            self._queue.failed(key)
        else:
            self._queue.succeeded(key)
        if outcome.requeue_after is not None:
            self._queue.add_after(key, outcome.requeue_after)

    async def _settle(self, key: Key, md: Manifest) -> tuple[Outcome, Applied, bool]:
        """Applies until nothing is left to write, so that the outcome is that of what there is now; and whether that
        came to an end. Where somebody undoes each write it never does, and only a back-off keeps the peace.
        """
        for _ in range(ROUNDS):
            problems = self._problems.get(key, ())
            observed = observe(self._caches, self._reports, md, problems)
            outcome = self._judge(observed, self._settings, self._keys, self._now())
            applied = await self._applier.children(md, outcome.children, outcome.delete)
            self._remember(key, applied.problems)
            if applied.problems == problems and (not applied.wrote or (outcome.final and not applied.waiting)):
                return outcome, applied, True
            md = self._caches.deployments.get(key) or md
        return outcome, applied, False

    def _remember(self, key: Key, problems: tuple[Problem, ...]) -> None:
        if problems:
            self._problems[key] = problems
        else:
            self._problems.pop(key, None)

    def _attend(self, key: Key, md: Manifest, outcome: Outcome) -> None:
        pods = self._caches.pods.owned_by(owner_key(md))
        self._reports.attend(key, [pod["metadata"]["uid"] for pod in pods], outcome.follow, outcome.pushes)

    def _forget(self, key: Key) -> None:
        self._problems.pop(key, None)
        self._reports.forget(key)
        self._queue.succeeded(key)


class Workers:
    """So many passes at the same time, of different ModelDeployments."""

    def __init__(self, reconciler: Reconciler, count: int) -> None:
        self._reconciler, self._count = reconciler, count
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._reconciler.work(), name=f"worker {n}") for n in range(self._count)]

    async def ended(self) -> None:
        """Waits for a worker that ends, which none does by itself. Raises what ended it, RuntimeError without that."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        first = done.pop()
        await first
        raise RuntimeError(f"{first.get_name()} ended by itself")

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
