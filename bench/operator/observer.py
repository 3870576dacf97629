"""Watches the contest from outside: when the last ModelDeployment has settled, and whether its children came first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.operator import kinds
from bench.operator.api import Api


class Settling:
    """Follows all ModelDeployments by one watch. `done` at the moment (monotonic seconds) when `count` have settled."""

    def __init__(self, api: Api, count: int) -> None:
        self._api = api
        self._count = count
        self._born: dict[str, float] = {}
        self._settled: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        version = await self._look()
        self._task = asyncio.create_task(self._follow(version))

    async def _look(self) -> str:
        items, version = await self._api.list(kinds.MODEL_DEPLOYMENTS)
        for item in items:
            self._see(item)
        return version

    async def _follow(self, version: str) -> None:
        while True:
            async for kind, md in self._api.watch(kinds.MODEL_DEPLOYMENTS, version):
                if kind == "ERROR":
                    break
                self._see(md)
                if len(self._settled) >= self._count:
                    return
            # A busy API server ends the watches of those who read slowly, and we may get no CPU either.
            version = await self._look()
            if len(self._settled) >= self._count:
                return

    def _see(self, md: Mapping[str, Any]) -> None:
        name = md["metadata"]["name"]
        self._born.setdefault(name, time.monotonic())
        if kinds.settled(md):
            self._settled.setdefault(name, time.monotonic())

    async def wait(self, seconds: float, check: Callable[[], None]) -> float:
        """The moment of the last one; raises TimeoutError. `check` is called every second and may raise."""
        if self._task is None:
            raise RuntimeError("call start() first")
        deadline = time.monotonic() + seconds
        while not self._task.done():
            check()
            if time.monotonic() > deadline:
                self._task.cancel()
                raise TimeoutError(f"{len(self._settled)} of {self._count} ModelDeployments settled in {seconds:.0f} s")
            await asyncio.wait({self._task}, timeout=1.0)
        self._task.result()
        return max(self._settled.values())

    def latencies(self) -> list[float]:
        """Seconds from seeing each new ModelDeployment to seeing it settled, ascending."""
        return sorted(self._settled[name] - self._born[name] for name in self._settled)


async def objects(api: Api) -> dict[str, list[dict[str, Any]]]:
    """All ModelDeployments and, by kind, all children."""
    found = {kind: (await api.list(path, kinds.OWNER_LABEL))[0] for kind, path in kinds.CHILDREN.items()}
    return found | {"modeldeployments": (await api.list(kinds.MODEL_DEPLOYMENTS))[0]}


def late_children(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """What was missing when a status claimed to be up to date: 'kind of NAME' for each child that is absent or newer.

    Resource versions grow with every write to etcd, whatever the kind, so they tell which of two writes came first.
    """
    late = []
    owned = {kind: {owner(child): child for child in found[kind]} for kind in kinds.CHILDREN}
    for md in found["modeldeployments"]:
        name, version = md["metadata"]["name"], int(md["metadata"]["resourceVersion"])
        for kind, children in owned.items():
            child = children.get(name)
            if child is None or int(child["metadata"]["resourceVersion"]) > version:
                late.append(f"{kind} of {name}")
    return late


def owner(child: Mapping[str, Any]) -> str:
    """Name of the ModelDeployment."""
    return str(child["metadata"]["labels"][kinds.OWNER_LABEL])
