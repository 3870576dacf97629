"""All informers together: their end is noticed, before the caches are complete and after."""

from __future__ import annotations

import asyncio

import pytest

from modelpier_operator.cluster.caches import Caches
from modelpier_operator.cluster.informer import Informer
from modelpier_operator.telemetry import Telemetry
from support.api import MemoryApi
from support.builders import settings


@pytest.mark.parametrize("after", [0, 1])
async def test_an_informer_that_ends_is_noticed(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    run, go = Informer.run, asyncio.Event()

    async def broken(informer: Informer) -> None:
        if informer is not caches.informers[0]:
            await run(informer)
        if after:
            informer.synced.set()
            await go.wait()
        raise ValueError("a defect")

    monkeypatch.setattr(Informer, "run", broken)
    caches = Caches(MemoryApi().connect(), settings(), Telemetry(), lambda _: None)
    caches.start()
    async with asyncio.timeout(10):
        if after:
            await caches.synced()
            go.set()
        with pytest.raises(ValueError, match="a defect"):
            await (caches.ended() if after else caches.synced())
    await caches.stop()
