from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modelpier_operator.cluster import errors
from modelpier_operator.cluster.informer import DENIED_RETRY, Informer
from modelpier_operator.cluster.kinds import CONFIG_MAP, Key
from modelpier_operator.telemetry import Telemetry
from support import virtual_time
from support.api import MemoryApi
from support.faults import Faulty

SELECTOR = {"labelSelector": "app=m"}


class Sink:
    def __init__(self) -> None:
        self.objects: dict[Key, dict[str, Any]] = {}
        self.refused = 0

    def put(self, manifest: dict[str, Any]) -> None:
        metadata = manifest["metadata"]
        self.objects[metadata["namespace"], metadata["name"]] = manifest

    def drop(self, manifest: dict[str, Any]) -> None:
        del self.objects[manifest["metadata"]["namespace"], manifest["metadata"]["name"]]

    def retain(self, namespace: str | None, seen: set[Key], version: int) -> None:
        self.objects = {key: o for key, o in self.objects.items() if key in seen}

    def advance(self, namespace: str | None, version: int) -> None: ...

    def denied(self) -> None:
        self.refused += 1

    def names(self) -> set[str]:
        return {name for _, name in self.objects}


class Rig:
    def __init__(self, *, optional: bool = False) -> None:
        self.server, self.sink, self.telemetry = MemoryApi(), Sink(), Telemetry()
        self.api = Faulty(self.server.connect())
        self.informer = Informer(
            self.api, CONFIG_MAP, None, self.sink, self.telemetry, selector=SELECTOR, optional=optional
        )

    def add(self, name: str, app: str = "m") -> None:
        metadata = {"name": name, "namespace": "team", "labels": {"app": app}}
        self.server.create("configmaps", {"metadata": metadata})

    async def run(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self.informer.run())
        await self.informer.synced.wait()
        return task

    def lists(self) -> int:
        return int(self.telemetry.relists.values.get(("configmaps",), 0))


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_lists_in_pages_and_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelpier_operator.cluster.informer.PAGE", "2")

    async def main() -> None:
        rig = Rig()
        for number in range(5):
            rig.add(f"c{number}")
        rig.add("not ours", app="other")
        task = await rig.run()
        assert rig.sink.names() == {f"c{n}" for n in range(5)}
        assert rig.sink.objects["team", "c0"]["kind"] == "ConfigMap"
        rig.add("later")
        rig.server.delete("configmaps", "team", "c0")
        await asyncio.sleep(0.1)
        assert rig.sink.names() == {"c1", "c2", "c3", "c4", "later"}
        assert rig.lists() == 1
        await _stop(task)

    virtual_time.run(main())


def test_a_watch_that_breaks_goes_on_where_it_was() -> None:
    async def main() -> None:
        rig = Rig()
        task = await rig.run()
        await asyncio.sleep(1)
        rig.api.drop_watches()
        rig.add("in the gap")
        await asyncio.sleep(5)
        assert rig.sink.names() == {"in the gap"}
        assert rig.lists() == 1
        await _stop(task)

    virtual_time.run(main())


def test_a_watch_that_is_too_old_lists_again_and_finds_deletions() -> None:
    async def main() -> None:
        rig = Rig()
        rig.add("gone")
        task = await rig.run()
        await asyncio.sleep(1)
        rig.api.drop_watches()
        rig.server.delete("configmaps", "team", "gone")
        rig.add("made")
        rig.server.compact()
        await asyncio.sleep(5)
        assert rig.sink.names() == {"made"}
        assert rig.lists() == 2
        await _stop(task)

    virtual_time.run(main())


def test_without_rights_an_optional_sink_does_without_and_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        rig = Rig(optional=True)
        rig.add("c")
        allowed = rig.api.get

        async def refused(*_: Any, **__: Any) -> Any:
            raise errors.ForbiddenError("no", status=403)

        monkeypatch.setattr(rig.api, "get", refused)
        task = await rig.run()
        assert rig.sink.refused == 1
        assert rig.informer.heard is None
        monkeypatch.setattr(rig.api, "get", allowed)
        await asyncio.sleep(DENIED_RETRY + 1)
        assert rig.sink.names() == {"c"}
        await _stop(task)

    virtual_time.run(main())


def test_an_api_server_that_is_away_is_waited_for_with_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        rig = Rig()
        allowed, tries = rig.api.get, 0

        async def away(*_: Any, **__: Any) -> Any:
            nonlocal tries
            tries += 1
            raise errors.UnavailableError("no answer")

        monkeypatch.setattr(rig.api, "get", away)
        task = asyncio.create_task(rig.informer.run())
        await asyncio.sleep(600)
        assert 20 < tries < 60
        monkeypatch.setattr(rig.api, "get", allowed)
        await asyncio.sleep(31)
        assert rig.informer.synced.is_set()
        await _stop(task)

    virtual_time.run(main())
