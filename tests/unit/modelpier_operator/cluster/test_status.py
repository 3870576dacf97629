"""StatusWriter over the API in memory: what its own write hides from the watch, and what it must not hide."""

from __future__ import annotations

from typing import Any

import pytest

from modelpier_operator.cluster.deployments import Deployments
from modelpier_operator.cluster.kinds import Key
from modelpier_operator.cluster.status import StatusWriter
from support.api import MemoryApi
from support.builders import md

Object = dict[str, Any]
KEY = ("team", "m")
STATUS = {"observedGeneration": 1}


class Bench:
    """The operator knows the ModelDeployment as it was created; its watch brings what `deliver` hands it."""

    def __init__(self) -> None:
        self.server = MemoryApi()
        self.news: list[Key] = []
        self.deployments = Deployments(self.news.append)
        self.writer = StatusWriter(self.server.connect(), self.deployments)
        self.deliver(self.server.create("modeldeployments", md()))

    def deliver(self, manifest: Object) -> None:
        self.deployments.seen(manifest)

    async def write(self) -> bool:
        """As a pass does, with what it knows. `news` holds what it led to."""
        self.news.clear()
        return await self.writer.write(self.known(), STATUS)

    def known(self) -> Object:
        found = self.deployments.get(KEY)
        assert found is not None
        return found

    def live(self) -> Object:
        found = self.server.get("modeldeployments", *KEY)
        assert found is not None
        return found

    def somebody_writes(self, **changes: Object) -> Object:
        """Returns the object of the event, which is still to be delivered."""
        live = self.live()
        merged = {name: {**live.get(name, {}), **change} for name, change in changes.items()}
        return self.server.replace("modeldeployments", {**live, **merged})


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_the_own_write_is_no_news_and_is_not_repeated(bench: Bench) -> None:
    assert await bench.write()
    bench.deliver(bench.live())
    assert not await bench.write()
    assert bench.news == []


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"replicas": 3}},
        {"metadata": {"labels": {"team": "other"}}},
        {"status": {"left": "by an operator that led before"}},
    ],
)
async def test_what_the_watch_has_yet_to_bring_is_news_with_the_answer(bench: Bench, change: dict[str, Object]) -> None:
    event = bench.somebody_writes(**change)
    await bench.write()
    bench.deliver(event)
    assert bench.news == [KEY]
    assert bench.known()["metadata"]["resourceVersion"] == bench.live()["metadata"]["resourceVersion"]


async def test_what_the_watch_brought_before_the_answer_is_news_once(bench: Bench) -> None:
    bench.deliver(bench.somebody_writes(spec={"replicas": 3}))
    assert bench.news[1:] == [KEY]
    await bench.write()
    assert bench.news == []


async def test_a_successor_of_the_same_name_keeps_its_own_status(bench: Bench) -> None:
    bench.server.delete("modeldeployments", *KEY)
    bench.server.create("modeldeployments", md())
    assert not await bench.write()
    assert "status" not in bench.live()
