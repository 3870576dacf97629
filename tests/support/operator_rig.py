"""The whole operator but kopf, HTTP and the election, over any `Api`: what the convergence suite starts, kills and
restarts.

ModelDeployments come through an informer in place of kopf's watch; model servers are those of a `World`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any

from modelpier_operator.cluster.caches import Caches
from modelpier_operator.cluster.census import Census
from modelpier_operator.cluster.client import Api
from modelpier_operator.cluster.deployments import Deployments
from modelpier_operator.cluster.informer import Informer
from modelpier_operator.cluster.kinds import MODEL_DEPLOYMENT, Key
from modelpier_operator.cluster.observe import observe
from modelpier_operator.cluster.queue import Queue
from modelpier_operator.decide.facts import Outcome, PlanPush
from modelpier_operator.judge import judge
from modelpier_operator.reconcile import Judge, Reconciler, Workers
from modelpier_operator.settings import PlanKeys, Settings
from modelpier_operator.telemetry import Telemetry
from modelpier_server.contract import Report
from support.builders import KEYS, settings
from support.world import World

Object = dict[str, Any]


class DeploymentSink:
    """Feeds `Deployments` as kopf does, deletions in gaps included."""

    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments

    def put(self, manifest: Object) -> None:
        self._deployments.seen(manifest)

    def drop(self, manifest: Object) -> None:
        self._deployments.deleted(manifest)

    def retain(self, namespace: str | None, seen: set[Key], version: int) -> None:
        """kopf does not compare: this is the gap that the census closes."""

    def advance(self, namespace: str | None, version: int) -> None: ...

    def denied(self) -> None: ...


class WorldReports:
    """`Reports` whose network is a World: what is followed is known, what is pushed arrives."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[str, Report] = {}
        self._followed: dict[Key, frozenset[str]] = {}

    def report(self, pod_uid: str) -> Report | None:
        return self._known.get(pod_uid)

    def unreachable(self, pod_uid: str) -> str:
        return ""

    def attend(
        self, key: Key, pods: Iterable[str], follow: Iterable[tuple[str, str]], pushes: Iterable[PlanPush]
    ) -> None:
        self._followed[key] = frozenset(uid for uid, _ in follow) | {push.pod_uid for push in pushes}
        for push in pushes:
            self._world.push(push.pod_uid, push.plan, push.signature)

    def forget(self, key: Key) -> None:
        self._followed.pop(key, None)

    def poll(self, changed: Callable[[Key], None]) -> None:
        """What long polls would have brought by now."""
        said = self._world.reports()
        for key, uids in self._followed.items():
            news = {uid: said[uid] for uid in uids if uid in said and self._known.get(uid) != said[uid]}
            self._known.update(news)
            if news:
                changed(key)


async def never() -> None:
    """A process that was killed gets no further chance to write."""
    await asyncio.Event().wait()


class Rig:
    """One operator process. `await start()`, `await stop()`; killed by simply being stopped at any point."""

    def __init__(
        self,
        api: Api,
        world: World,
        *,
        now: Callable[[], datetime] | None = None,
        judging: Judge = judge,
        chosen: Settings | None = None,
        keys: PlanKeys = KEYS,
        workers: int = 2,
        may_write: Callable[[], Awaitable[None]] = never,
    ) -> None:
        chosen = chosen or settings()
        self._settings, self._judging, self._now = chosen, judging, now or (lambda: world.now)
        self._keys = keys
        self.telemetry = Telemetry()
        self.queue = Queue(base=0.2, cap=5.0)
        self.caches = Caches(api, chosen, self.telemetry, self.queue.add)
        self.reports = WorldReports(world)
        self.feed = Informer(
            api, MODEL_DEPLOYMENT, None, DeploymentSink(self.caches.deployments), self.telemetry, selector={}
        )
        reconciler = Reconciler(
            api,
            self.caches,
            self.reports,
            self.queue,
            judge=judging,
            settings=chosen,
            keys=keys,
            telemetry=self.telemetry,
            may_write=may_write,
            now=self._now,
        )
        self.workers = Workers(reconciler, workers)
        self._census = Census(api, self.caches.deployments, (), self.telemetry, every=60.0)
        self._tasks: list[asyncio.Task[None]] = []

    def judged(self, md: Object) -> Outcome:
        """What a pass would decide now, from its caches."""
        observed = observe(self.caches, self.reports, md, ())
        return self._judging(observed, self._settings, self._keys, self._now())

    async def start(self) -> None:
        self.caches.start()
        self._tasks = [asyncio.create_task(self.feed.run()), asyncio.create_task(self._census.run())]
        await self.caches.synced()
        await self.feed.synced.wait()
        self.workers.start()

    async def stop(self) -> None:
        await self.workers.stop()
        self.queue.close()
        await self.caches.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
