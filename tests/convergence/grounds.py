"""Where the convergence suite runs: the API in memory, and a real API server. The machine sees no difference.

Pods, their servers and the garbage collector are simulated on both. A ground's clock is put ahead by hand, and with it
every timer of the operator: a lost requeue is lost on both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from modelpier_cluster import ControlPlane
from modelpier_operator import names
from modelpier_operator.cluster.client import Api, Client
from modelpier_operator.cluster.kinds import CHILDREN, MODEL_DEPLOYMENT, POD
from modelpier_operator.telemetry import Telemetry
from support.api import MemoryApi
from support.faults import Faulty
from support.operator_rig import Rig
from support.real_api import ApiServer
from support.virtual_time import VirtualLoop, WarpLoop

Object = dict[str, Any]
T = TypeVar("T")
NAMESPACE = "team"
DELIVERY = 0.5
"""Seconds that an event of a real API server is waited for: a broken watch brings none."""
BUSY = 30.0
QUIET_LOOKS = 3


class Users(Protocol):
    """What people, controllers and the garbage collector do at the API server."""

    def list(self, plural: str, namespace: str | None = None) -> list[Object]: ...
    def get(self, plural: str, namespace: str, name: str) -> Object | None: ...
    def create(self, plural: str, manifest: Object) -> Object: ...
    def replace(self, plural: str, manifest: Object) -> Object: ...
    def patch(self, plural: str, namespace: str, name: str, changes: Object) -> Object:
        """A merge patch."""

    def delete(self, plural: str, namespace: str, name: str) -> None: ...
    def collect_garbage(self) -> None: ...


class Ground(Protocol):
    @property
    def users(self) -> Users: ...
    def run(self, doing: Coroutine[Any, Any, T]) -> T: ...
    def connect(self) -> Api: ...
    async def patiently(self, doing: Coroutine[Any, Any, T]) -> T:
        """However many timers have to end before it is done."""

    async def let_pass(self, seconds: float, rig: Rig, api: Faulty) -> None:
        """The operator does what it does within so much time."""

    def close(self) -> None: ...


class MemoryGround:
    """Hours pass in milliseconds."""

    def __init__(self) -> None:
        self.users = MemoryApi()
        self._runner = asyncio.Runner(loop_factory=VirtualLoop)

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(doing)

    def connect(self) -> Api:
        return self.users.connect()

    async def patiently(self, doing: Coroutine[Any, Any, T]) -> T:
        return await doing

    async def let_pass(self, seconds: float, rig: Rig, api: Faulty) -> None:
        await asyncio.sleep(seconds)

    def close(self) -> None:
        self._runner.close()


class RealGround:
    """What is asked of the server takes its time; the seconds in between do not."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self.users = ApiServer(control_plane.kubeconfig)
        self._loop = WarpLoop()
        self._runner = asyncio.Runner(loop_factory=lambda: self._loop)
        self._client = Client(self.users.access, user_agent="modelpier-operator", telemetry=Telemetry())
        self._runner.run(self._open())

    async def _open(self) -> None:
        await self._client.__aenter__()

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(doing)

    def connect(self) -> Api:
        return self._client

    async def patiently(self, doing: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(doing)
        while not task.done():
            await asyncio.wait((task,), timeout=0.02)
            self._loop.warp(0.5)
        return await task

    async def let_pass(self, seconds: float, rig: Rig, api: Faulty) -> None:
        self._loop.warp(seconds)
        news, self.users.news = self.users.news, {}
        await _until(lambda: all(_arrived(rig, api, *item) for item in news.items()), DELIVERY)
        await _idle(rig, api)

    def close(self) -> None:
        self.users.clear(NAMESPACE)
        self._runner.run(self._client.__aexit__())
        self._runner.close()
        self.users.close()


def _arrived(rig: Rig, api: Faulty, key: tuple[str, str, str], version: str) -> bool:
    """Whether the operator has heard of a write of somebody else's, as far as it is to hear of it now."""
    plural, namespace, name = key
    stores: dict[str, Any] = {kind.plural: rig.caches.children[kind.kind] for kind in CHILDREN.values()}
    stores |= {POD.plural: rig.caches.pods, MODEL_DEPLOYMENT.plural: rig.caches.deployments}
    known = stores[plural].get((namespace, name))
    if known is None or api.lags(plural):
        return True
    return bool(version) and int(known["metadata"]["resourceVersion"]) >= int(version)


async def _idle(rig: Rig, api: Faulty) -> None:
    """Returns once the operator has nothing to do now, or is dead."""
    looks = 0

    def quiet() -> bool:
        nonlocal looks
        looks = looks + 1 if rig.queue.idle else 0
        return looks == QUIET_LOOKS or api.dead

    assert await _until(quiet, BUSY), "the operator does not come to rest"


async def _until(done: Callable[[], bool], seconds: float) -> bool:
    """Looked at again and again: it happens in the operator and on the network."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.003)
    return True


class UserStore:
    """The World's objects at the API server. Its pods are nobody else's to write: they are read from here."""

    plurals = {"Pod": "pods", "Deployment": "deployments", "ConfigMap": "configmaps"}  # noqa: RUF012 - never changed

    def __init__(self, users: Users) -> None:
        self._users = users
        self._pods: dict[str, Object] = {}
        self._seen: dict[str, list[Object]] = {}
        self.writes = 0

    def look(self) -> None:
        """What others have done since the last look."""
        self._seen.clear()

    def list(self, kind: str) -> list[Object]:
        if kind == "Pod":
            return sorted(self._pods.values(), key=lambda pod: str(pod["metadata"]["name"]))
        if kind not in self._seen:
            found = self._users.list(self.plurals[kind], NAMESPACE)
            self._seen[kind] = [o for o in found if names.LABEL_POD_SET in (o["metadata"].get("labels") or {})]
        return self._seen[kind]

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        found = (o for o in self.list(kind) if (o["metadata"]["namespace"], o["metadata"]["name"]) == (namespace, name))
        return next(found, None)

    def put(self, manifest: Object) -> None:
        metadata, plural = manifest["metadata"], self.plurals[manifest["kind"]]
        assert plural == "pods"
        self.writes += 1
        if metadata["name"] in self._pods:
            self._users.replace(plural, manifest)
            self._pods[metadata["name"]] = manifest
        else:
            made = self._users.create(plural, manifest)
            owners = {"ownerReferences": metadata["ownerReferences"]}
            self._pods[metadata["name"]] = {**manifest, "metadata": {**made["metadata"], **owners}}

    def remove(self, manifest: Object) -> None:
        self.writes += 1
        metadata = manifest["metadata"]
        self._users.delete(self.plurals[manifest["kind"]], metadata["namespace"], metadata["name"])
        self._pods.pop(metadata["name"], None)
