"""Workers while the lease is short of time, over the API in memory and in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modelpier_operator.cluster import errors
from modelpier_operator.cluster.client import Api
from modelpier_operator.cluster.config import Access
from modelpier_operator.cluster.lease import Elector
from modelpier_operator.judge import judge
from modelpier_operator.process import Exit, Process
from modelpier_operator.reconcile import Reconciler, Workers
from support import virtual_time
from support.api import MemoryApi
from support.builders import md, settings
from support.faults import Faulty
from support.operator_rig import Rig
from support.world import DictStore, World

WORKERS = 16


class Gated(Faulty):
    """An `Api` whose writes are refused before they start for as long as the gate is closed."""

    def __init__(self, api: Api) -> None:
        super().__init__(api)
        self.open, self.refused = asyncio.Event(), 0

    async def write(self, method: str, path: str, body: Any, **how: Any) -> Any:
        if not self.open.is_set():
            self.refused += 1
            raise errors.NotLeaderError("1 s is left on the lease")
        return await super().write(method, path, body, **how)

    async def may_write(self) -> None:
        await self.open.wait()


def test_a_lease_that_is_short_of_time_for_a_while_costs_neither_workers_nor_keys() -> None:
    async def main() -> None:
        server = MemoryApi()
        api = Gated(server.connect())
        rig = Rig(api, World(DictStore()), workers=WORKERS, may_write=api.may_write)
        await rig.start()
        names = [f"md-{number}" for number in range(2 * WORKERS)]
        for name in names:
            server.create("modeldeployments", md(name))
        await asyncio.sleep(30)
        assert WORKERS <= api.refused <= WORKERS * 5, "each worker tries one pass, and waits"
        api.open.set()
        await asyncio.sleep(1)
        for name in names:
            live = server.get("modeldeployments", "team", name)
            assert live
            assert live["status"]["observedGeneration"] == live["metadata"]["generation"]
        ended = asyncio.create_task(rig.workers.ended())
        await asyncio.sleep(30)
        assert not ended.done(), "all of them are alive"
        ended.cancel()
        await rig.stop()

    virtual_time.run(main())


class Failing(Reconciler):
    def __init__(self) -> None:
        """Nothing: it does not get so far as to need any of it."""

    async def work(self) -> None:
        raise KeyError("a defect")


async def test_a_worker_that_ends_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forever(_: Elector) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Elector, "keep", forever)
    process = Process(settings(), Access(server="http://127.0.0.1:1"), judge)
    workers = Workers(Failing(), 2)
    workers.start()
    kopf = asyncio.create_task(asyncio.sleep(60))
    async with asyncio.timeout(5):
        assert await process._lead(kopf, workers) == Exit.FAILED
    kopf.cancel()
    await workers.stop()
