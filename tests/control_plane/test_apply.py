"""Applier against a real API server: creation that adopts nothing, and removal of fields after a creation by POST."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from control_plane.operators import model_deployment
from modelpier_operator import names
from modelpier_operator.cluster.apply import NAME_CONFLICT, Applied, Applier, OwnerGoneError
from modelpier_operator.cluster.caches import Caches
from modelpier_operator.cluster.client import Client
from modelpier_operator.cluster.errors import ConflictError
from modelpier_operator.decide.facts import Ref
from modelpier_operator.telemetry import Telemetry
from support.builders import settings
from support.control_plane import missing
from support.real_api import ApiServer

pytestmark = [pytest.mark.control_plane, pytest.mark.skipif(bool(missing()), reason=missing())]
Object = dict[str, Any]


class Bench:
    """An Applier with warm caches, for one ModelDeployment."""

    def __init__(self, server: ApiServer, namespace: str) -> None:
        self.telemetry = Telemetry()
        self.client = Client(server.access, user_agent="modelpier-operator", telemetry=self.telemetry)
        self.caches = Caches(self.client, settings(watch_namespaces=(namespace,)), self.telemetry, lambda _: None)
        self.applier = Applier(self.client, self.caches, self.telemetry)
        self.md = server.create("modeldeployments", model_deployment("m", namespace))
        self.server, self.namespace = server, namespace

    def child(self, kind: str, api_version: str, **body: Any) -> Object:
        labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_DEPLOYMENT: "m", **body.pop("labels", {})}
        owner = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "m", "uid": self.md["metadata"]["uid"]}
        metadata = {"name": "child", "namespace": self.namespace, "labels": labels}
        metadata["ownerReferences"] = [{**owner, "controller": True, "blockOwnerDeletion": True}]
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}

    def deployment(self, *, env: int, labels: dict[str, str], node_selector: dict[str, str]) -> Object:
        app = {"app": "m"}
        pod: Object = {"containers": [{"name": "server", "image": "x", "env": [_env(n) for n in range(env)]}]}
        if node_selector:
            pod["nodeSelector"] = node_selector
        spec = {"replicas": 1, "selector": {"matchLabels": app}, "template": {"metadata": {"labels": app}, "spec": pod}}
        return self.child("Deployment", "apps/v1", labels=labels, spec=spec)

    async def apply(self, *wanted: Object, delete: tuple[Ref, ...] = ()) -> Applied:
        return await self.applier.children(self.md, wanted, delete)

    def writes(self) -> float:
        return sum(self.telemetry.writes.values.values())


@pytest.fixture
async def bench(api_server: ApiServer, namespace: str) -> AsyncIterator[Bench]:
    made = Bench(api_server, namespace)
    async with made.client:
        made.caches.start()
        await made.caches.synced()
        yield made
        await made.caches.stop()


async def test_a_label_an_env_and_a_node_selector_go(bench: Bench) -> None:
    await bench.apply(bench.deployment(env=2, labels={"extra": "yes"}, node_selector={"disk": "ssd"}))
    assert bench.writes() == 1
    await bench.apply(bench.deployment(env=1, labels={}, node_selector={}))
    live = bench.server.get("deployments", bench.namespace, "child")
    assert live
    assert "extra" not in live["metadata"]["labels"]
    assert "nodeSelector" not in live["spec"]["template"]["spec"]
    assert len(live["spec"]["template"]["spec"]["containers"][0]["env"]) == 1
    before = bench.writes()
    await bench.apply(bench.deployment(env=1, labels={"again": "yes"}, node_selector={}))
    assert bench.writes() - before == 1, "once it is recorded as ours by apply, one write is enough"


async def test_a_key_of_a_config_map_goes(bench: Bench) -> None:
    await bench.apply(bench.child("ConfigMap", "v1", data={"a": "1", "b": "2"}))
    before = bench.writes()
    await bench.apply(bench.child("ConfigMap", "v1", data={"a": "3", "b": "2"}))
    assert bench.writes() - before == 1, "nothing is taken away: one write"
    await bench.apply(bench.child("ConfigMap", "v1", data={"a": "3"}))
    live = bench.server.get("configmaps", bench.namespace, "child")
    assert live
    assert live["data"] == {"a": "3"}


async def test_what_others_added_stays(bench: Bench) -> None:
    await bench.apply(bench.child("ConfigMap", "v1", data={"a": "1"}))
    path = f"/api/v1/namespaces/{bench.namespace}/configmaps/child"
    bench.server.call("PATCH", path, {"metadata": {"annotations": {"theirs": "x"}}}, "application/merge-patch+json")
    await bench.apply(bench.child("ConfigMap", "v1", data={"a": "2"}))
    live = bench.server.get("configmaps", bench.namespace, "child")
    assert live
    assert live["metadata"]["annotations"]["theirs"] == "x"


async def test_the_same_again_writes_nothing(bench: Bench) -> None:
    wanted = bench.deployment(env=1, labels={}, node_selector={"disk": "ssd"})
    await bench.apply(wanted)
    before = bench.writes()
    assert not (await bench.apply(wanted)).wrote
    assert bench.writes() == before


@pytest.mark.parametrize("labelled", [False, True], ids=["without our labels", "with our labels"])
async def test_a_foreign_object_is_a_conflict(bench: Bench, *, labelled: bool) -> None:
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_DEPLOYMENT: "m"} if labelled else {}
    theirs = {"metadata": {"name": "child", "namespace": bench.namespace, "labels": labels}, "data": {"theirs": "1"}}
    before = bench.server.create("configmaps", theirs)
    store = bench.caches.children["ConfigMap"]
    await _until(lambda: not labelled or store.get((bench.namespace, "child")) is not None)
    applied = await bench.apply(bench.child("ConfigMap", "v1", data={"a": "1"}))
    assert [problem.reason for problem in applied.problems] == [NAME_CONFLICT]
    await bench.apply(delete=(Ref("ConfigMap", "child", before["metadata"]["uid"]),))
    assert bench.server.get("configmaps", bench.namespace, "child") == before


async def test_a_deletion_means_one_object(bench: Bench) -> None:
    wanted = bench.child("ConfigMap", "v1", data={"a": "1"})
    await bench.apply(wanted)
    await bench.apply(delete=(Ref("ConfigMap", "child", "another-uid"),))
    assert bench.server.get("configmaps", bench.namespace, "child")
    await bench.apply(delete=(Ref("ConfigMap", "child"),))
    assert bench.server.get("configmaps", bench.namespace, "child") is None


async def test_a_change_means_one_object(bench: Bench) -> None:
    """The object was replaced by another of the same name, and the caches do not know yet."""
    await bench.apply(bench.child("ConfigMap", "v1", data={"a": "1"}))
    await bench.caches.stop()
    bench.server.delete("configmaps", bench.namespace, "child")
    theirs = {"metadata": {"name": "child", "namespace": bench.namespace}, "data": {"theirs": "1"}}
    before = bench.server.create("configmaps", theirs)
    with pytest.raises(ConflictError):
        await bench.apply(bench.child("ConfigMap", "v1", data={"a": "2"}))
    assert bench.server.get("configmaps", bench.namespace, "child") == before


async def test_nothing_is_made_again_for_an_owner_that_is_gone(bench: Bench) -> None:
    bench.md["status"] = {"observedGeneration": 1}
    bench.server.delete("modeldeployments", bench.namespace, "m")
    with pytest.raises(OwnerGoneError):
        await bench.apply(bench.child("ConfigMap", "v1", data={"a": "1"}))
    assert bench.writes() == 0


def _env(number: int) -> Object:
    return {"name": f"E{number}", "value": "x"}


async def _until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not done():  # noqa: ASYNC110 - what changes is at the API server
            await asyncio.sleep(0.02)
