"""One operator process from start to end: caches warm at once, probes, election, workers while it leads, a quick
goodbye.

A standby does everything but write, so that it takes over without a listing. Composed here, called by `__main__`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import signal
import uuid
from collections.abc import Awaitable
from enum import IntEnum
from typing import Any

from modelpier_operator import handlers
from modelpier_operator.cluster import keys
from modelpier_operator.cluster.caches import Caches
from modelpier_operator.cluster.census import Census
from modelpier_operator.cluster.client import WRITE_TIMEOUT, Client
from modelpier_operator.cluster.config import Access
from modelpier_operator.cluster.lease import Elector, LeadershipLostError
from modelpier_operator.cluster.queue import Queue
from modelpier_operator.cluster.reports import Reports
from modelpier_operator.probes import ProbeServer
from modelpier_operator.reconcile import Judge, Reconciler, Workers
from modelpier_operator.settings import Settings
from modelpier_operator.telemetry import Telemetry

log = logging.getLogger(__name__)

SILENCE_LIMIT = 600.0
"""Seconds without any event, bookmark or listing of a kind after which the process counts as dead."""
DEAF_LIMIT = 2
"""Listings of names in a row that showed something which kopf had not delivered."""
LAST_WRITES = 1.0
"""Seconds that writes in flight get at the end; afterwards the lease is left to run out."""
LAST_KOPF = 0.3


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    LOST_LEASE = 3


class Process:
    """`await run()` once, in its own event loop."""

    def __init__(self, settings: Settings, access: Access, judge: Judge) -> None:
        self._settings, self._access, self._judge = settings, access, judge
        self.telemetry = Telemetry()
        self._queue = Queue()
        self._stop = asyncio.Event()
        self._kopf_stop = asyncio.Event()
        # Writes must fit into the lease several times over, whatever its duration.
        self._write_timeout = min(WRITE_TIMEOUT, settings.lease_duration / 3)
        identity = f"{platform.node()}_{uuid.uuid4()}"
        self._client = Client(
            access,
            user_agent=f"modelpier-operator ({identity})",
            telemetry=self.telemetry,
            write_timeout=self._write_timeout,
        )
        self._elector = Elector(self._client, settings, identity)
        self._client.guard(self._elector.gate)
        self._caches = Caches(self._client, settings, self.telemetry, self._queue.add)
        self._reports = Reports(self._queue.add)
        self._census = Census(self._client, self._caches.deployments, settings.watch_namespaces, self.telemetry)
        self._probes = ProbeServer(settings.http_port, self.telemetry, healthy=self.unhealthy, ready=self.unready)
        self._workers: Workers | None = None
        self._synced = False
        self._describe()

    # ------------------------------------------------------------------------------------------ probes and metrics
    def unhealthy(self) -> str:
        """What is wrong, empty when nothing is."""
        now = asyncio.get_running_loop().time()
        silent = [kind for kind, age in self._caches.ages(now).items() if age > SILENCE_LIMIT]
        if silent:
            return f"nothing heard for {SILENCE_LIMIT:g} s of: {', '.join(sorted(silent))}"
        return "the watch of ModelDeployments does not deliver" if self._census.deaf >= DEAF_LIMIT else ""

    def unready(self) -> str:
        return "" if self._synced else "the caches are not complete yet"

    def _describe(self) -> None:
        gauge, prefix = self.telemetry.gauge, "modelpier_operator"
        gauge(f"{prefix}_leader", "1 while this process may write.", lambda: float(self._elector.leading))
        gauge(f"{prefix}_queue_depth", "ModelDeployments that wait for a worker.", lambda: float(len(self._queue)))
        gauge(f"{prefix}_deployments", "ModelDeployments known.", lambda: float(len(self._caches.deployments)))
        gauge(f"{prefix}_followed_pods", "Pods whose admin port is followed.", lambda: float(len(self._reports)))
        self.telemetry.gauges_by(
            "resource",
            f"{prefix}_informer_age_seconds",
            "Time since the last event, bookmark or listing.",
            lambda: self._caches.ages(asyncio.get_running_loop().time()),
        )

    # ------------------------------------------------------------------------------------------ life
    async def run(self) -> Exit:
        """Until a signal or the loss of the lease. Raises OSError, PlanKeyError."""
        self._take_signals()
        await self._probes.start()
        try:
            async with self._client:
                return await self._lead_until_stopped()
        finally:
            await self._probes.stop()

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    async def _lead_until_stopped(self) -> Exit:
        kopf: asyncio.Task[None] | None = None
        background: list[asyncio.Task[None]] = []
        try:
            if not await self._unless_stopped(self._warm_up()):
                return Exit.OK
            kopf = await handlers.spawn(
                self._caches.deployments, self._access, self._settings.watch_namespaces, self._kopf_stop
            )
            # kopf takes the signals for itself, and its end would come first then.
            self._take_signals()
            background.append(asyncio.create_task(self._census.run(), name="census"))
            if not await self._unless_stopped(self._start_leading()) or self._workers is None:
                return Exit.OK
            return await self._lead(kopf, self._workers)
        finally:
            await self._end(kopf, background)

    async def _warm_up(self) -> None:
        await self._census.wait_for_kind()
        self._caches.start()
        await self._caches.synced()
        self._synced = True

    async def _start_leading(self) -> None:
        await self._elector.acquire()
        reconciler = Reconciler(
            self._client,
            self._caches,
            self._reports,
            self._queue,
            judge=self._judge,
            settings=self._settings,
            keys=await keys.load(self._client, self._settings),
            telemetry=self.telemetry,
            may_write=lambda: self._elector.time_for(self._write_timeout),
        )
        self._workers = Workers(reconciler, self._settings.workers)
        self._workers.start()

    async def _lead(self, kopf: asyncio.Task[None], workers: Workers) -> Exit:
        keeping = asyncio.create_task(self._elector.keep(), name="lease")
        stopping = asyncio.create_task(self._stop.wait())
        working = asyncio.create_task(workers.ended())
        watching = asyncio.create_task(self._caches.ended())
        try:
            await asyncio.wait((keeping, stopping, kopf, working, watching), return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                return Exit.OK
            if keeping.done():
                _exit_at_once(keeping.exception())
            if working.done():
                # Who leads without workers keeps everybody else from working.
                log.critical("a worker ended", exc_info=working.exception())
                return Exit.FAILED
            if watching.done():
                # Blind for one kind of objects, it would decide on what was true once.
                log.critical("an informer ended", exc_info=watching.exception())
                return Exit.FAILED
            log.error("kopf ended by itself")
            return Exit.FAILED
        finally:
            await _cancel(keeping, stopping, working, watching)

    async def _unless_stopped(self, doing: Awaitable[None]) -> bool:
        """Whether it was done before the signal came."""
        task = asyncio.ensure_future(doing)
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return False
            await task
            return True
        finally:
            await _cancel(task, stopping)

    async def _end(self, kopf: asyncio.Task[None] | None, background: list[asyncio.Task[None]]) -> None:
        """First no more writes, then the lease for the next one, then the rest."""
        self._elector.close()
        if await self._client.quiet(LAST_WRITES):
            await self._elector.release()
        self._queue.close()
        if self._workers:
            await self._workers.stop()
        await self._reports.stop()
        await self._caches.stop()
        await _cancel(*background)
        if kopf:
            self._kopf_stop.set()
            await asyncio.wait((kopf,), timeout=LAST_KOPF)
            await _cancel(kopf)


def _exit_at_once(error: BaseException | None) -> None:
    """Another process may be leading by now: nothing of this one is worth a graceful end."""
    log.critical("leadership lost: %s", error)
    if not isinstance(error, LeadershipLostError):
        log.critical("the election failed", exc_info=error)
    logging.shutdown()
    os._exit(Exit.LOST_LEASE)


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
