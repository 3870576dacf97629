"""Applier over the API in memory: in which order it writes, and what a refusal or a crash in between leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from modelpier_operator.cluster import errors
from modelpier_operator.cluster.apply import INVALID, Applied, Applier
from modelpier_operator.cluster.caches import Caches
from modelpier_operator.decide.facts import Manifest, Observed, Ref
from modelpier_operator.judge import judge
from modelpier_operator.telemetry import Telemetry
from support.api import MemoryApi
from support.builders import KEYS, T0, md, settings
from support.faults import Fault, Faulty

Object = dict[str, Any]


class Refusing(Faulty):
    """An `Api` that refuses to create what is of the kind `invalid`."""

    invalid = ""

    async def write(self, method: str, path: str, body: Any, **how: Any) -> Any:
        if method == "POST" and body["kind"] == self.invalid:
            raise errors.InvalidError("spec: no", status=422)
        return await super().write(method, path, body, **how)


class Bench:
    def __init__(self) -> None:
        self.server = MemoryApi()
        self.api = Refusing(self.server.connect())
        self.caches = Caches(self.api, settings(), Telemetry(), lambda _: None)
        self.applier = Applier(self.api, self.caches, Telemetry())
        self.md = self.server.create("modeldeployments", md())

    def wanted(self) -> tuple[Manifest, ...]:
        """All children of a ModelDeployment."""
        return judge(Observed(md=self.md), settings(), KEYS, T0).children

    async def apply(self, wanted: tuple[Manifest, ...], delete: tuple[Ref, ...] = ()) -> Applied:
        return await self.applier.children(self.md, wanted, delete)

    def plurals(self) -> list[str]:
        """Of what was written since the last look."""
        written = [write.split()[1] for write in self.server.writes]
        self.server.writes.clear()
        return written


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    made.caches.start()
    await made.caches.synced()
    yield made
    await made.caches.stop()


async def test_memory_comes_first_and_deployments_last(bench: Bench) -> None:
    await bench.apply(tuple(reversed(bench.wanted())))
    written = bench.plurals()
    assert written[0] == "controllerrevisions"
    assert written[-1] == "deployments"
    assert {"configmaps", "services"} <= set(written[1:-1])


@pytest.mark.parametrize("how", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.REFUSED])
async def test_a_plan_is_never_there_without_the_memory_that_it_rests_on(bench: Bench, how: Fault) -> None:
    bench.api.coming.append(how)
    with pytest.raises((errors.NotLeaderError, errors.ApiError)):
        await bench.apply(bench.wanted())
    assert set(bench.plurals()) <= {"controllerrevisions"}


async def test_a_change_of_memory_and_plan_is_made_in_that_order(bench: Bench) -> None:
    wanted = bench.wanted()
    await bench.apply(wanted)
    bench.plurals()
    changed = tuple(_noted(child) for child in wanted)
    bench.api.coming.append(Fault.REFUSED)
    with pytest.raises(errors.UnavailableError):
        await bench.apply(changed)
    assert bench.plurals() == []
    await bench.apply(changed)
    assert list(dict.fromkeys(bench.plurals())) == ["controllerrevisions", "configmaps"]


async def test_what_was_there_already_is_known_afterwards(bench: Bench) -> None:
    """The caches of a new leader lag behind what the one before it wrote: its status must tell of that."""
    await bench.apply(bench.wanted())
    await bench.caches.stop()
    bench.plurals()
    late = Caches(bench.api, settings(), Telemetry(), lambda _: None)
    applied = await Applier(bench.api, late, Telemetry()).children(bench.md, bench.wanted(), ())
    assert (applied.wrote, bench.plurals()) == (False, [])
    missing = [c for c in bench.wanted() if late.children[c["kind"]].get(("team", c["metadata"]["name"])) is None]
    assert missing == []


async def test_what_pods_need_is_refused_and_no_pods_are_asked_for(bench: Bench) -> None:
    bench.api.invalid = "ConfigMap"
    applied = await bench.apply(bench.wanted())
    assert [problem.reason for problem in applied.problems] == [INVALID]
    assert "deployments" not in bench.plurals()


@pytest.mark.parametrize("refused", ["Deployment", "ConfigMap"])
async def test_only_a_deployment_that_is_refused_holds_no_deletion_back(bench: Bench, refused: str) -> None:
    *others, old = bench.wanted()
    await bench.apply(tuple(child for child in (*others, old) if child["kind"] != "ConfigMap"))
    bench.plurals()
    new = {**old, "metadata": {**old["metadata"], "name": "m-new"}}
    bench.api.invalid = refused
    applied = await bench.apply((*others, new), (Ref("Deployment", old["metadata"]["name"]),))
    assert [problem.ref.kind for problem in applied.problems] == [refused]
    deleted = [write for write in bench.server.writes if write.startswith("DELETE")]
    assert deleted == ([f"DELETE deployments team/{old['metadata']['name']}"] if refused == "Deployment" else [])


def _noted(child: Manifest) -> Object:
    if child["kind"] not in ("ControllerRevision", "ConfigMap"):
        return dict(child)
    annotations = {**(child["metadata"].get("annotations") or {}), "example.org/digest": "pinned"}
    return {**child, "metadata": {**child["metadata"], "annotations": annotations}}
