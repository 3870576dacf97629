"""Passes with a judge that does as it is told, over the API in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from modelpier_operator import names
from modelpier_operator.decide.facts import Observed, Outcome
from modelpier_operator.reconcile import ROUNDS
from support import virtual_time
from support.api import MemoryApi
from support.faults import Fault, Faulty
from support.operator_rig import Rig
from support.world import DictStore, World

KEY = ("team", "m")


def child(observed: Observed, kind: str = "ConfigMap", api_version: str = "v1", name: str = "c", **body: Any) -> Any:
    metadata = observed.md["metadata"]
    owner = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "m", "uid": metadata["uid"]}
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_DEPLOYMENT: "m"}
    made = {
        "name": name,
        "namespace": metadata["namespace"],
        "labels": labels,
        "ownerReferences": [{**owner, "controller": True}],
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": made, **body}


class Bench:
    """A ModelDeployment `m`, and a judge that calls `decide`."""

    def __init__(self, decide: Callable[[Observed], Outcome]) -> None:
        self.server = MemoryApi()
        self.api = Faulty(self.server.connect())
        self.observed: list[Observed] = []

        def judging(observed: Observed, *_: Any) -> Outcome:
            self.observed.append(observed)
            return decide(observed)

        self.rig = Rig(self.api, World(DictStore()), judging=judging)

    async def start(self) -> None:
        self.server.create("modeldeployments", {"metadata": {"name": "m", "namespace": "team"}, "spec": {"a": 1}})
        await self.rig.start()

    def status(self) -> Any:
        live = self.server.get("modeldeployments", *KEY)
        return live and live.get("status")


def run(bench: Bench, scenario: Callable[[Bench], Any]) -> None:
    async def main() -> None:
        await bench.start()
        try:
            await scenario(bench)
        finally:
            await bench.rig.stop()

    virtual_time.run(main())


def test_the_status_is_of_what_there_is_after_the_writes() -> None:
    def decide(observed: Observed) -> Outcome:
        return Outcome((child(observed, data={"a": "1"}),), (), {"seen": len(observed.children)})

    async def scenario(bench: Bench) -> None:
        await asyncio.sleep(1)
        assert bench.status() == {"seen": 1}
        assert bench.server.writes == ["POST configmaps team/c", "PATCH modeldeployments/status team/m"]

    run(Bench(decide), scenario)


def test_deployments_come_after_what_their_pods_need() -> None:
    def decide(observed: Observed) -> Outcome:
        deployment = child(observed, "Deployment", "apps/v1", spec={"replicas": 1})
        return Outcome((deployment, child(observed, data={"a": "1"})), (), {})

    async def scenario(bench: Bench) -> None:
        await asyncio.sleep(1)
        assert bench.server.writes[:2] == ["POST configmaps team/c", "POST deployments team/c"]

    run(Bench(decide), scenario)


def test_a_problem_is_judged_in_the_same_pass_and_keeps_deployments_away() -> None:
    def decide(observed: Observed) -> Outcome:
        deployment = child(observed, "Deployment", "apps/v1", spec={"replicas": 1})
        told = {"problems": [problem.reason for problem in observed.problems]}
        return Outcome((child(observed, data={"a": "1"}), deployment), (), told)

    async def scenario(bench: Bench) -> None:
        bench.server.create("configmaps", {"metadata": {"name": "c", "namespace": "team"}, "data": {"theirs": "1"}})
        await asyncio.sleep(1)
        assert bench.status() == {"problems": ["NameConflict"]}
        assert bench.server.list("deployments") == []
        bench.server.delete("configmaps", "team", "c")
        await asyncio.sleep(10)
        assert bench.status() == {"problems": []}
        assert len(bench.server.list("deployments")) == 1

    run(Bench(decide), scenario)


def test_time_alone_brings_the_next_pass() -> None:
    async def scenario(bench: Bench) -> None:
        await asyncio.sleep(1)
        before = len(bench.observed)
        await asyncio.sleep(25)
        assert len(bench.observed) == before
        await asyncio.sleep(10)
        assert len(bench.observed) == before + 1

    run(Bench(lambda _: Outcome((), (), {"a": 1}, requeue_after=30.0)), scenario)


def test_a_judge_that_never_settles_is_asked_again_and_more_and_more_rarely() -> None:
    def decide(observed: Observed) -> Outcome:
        number = str(len(bench.observed))
        return Outcome((child(observed, data={"a": number}),), (), {})

    async def scenario(bench: Bench) -> None:
        # Each pass ends after a few rounds and puts the key back: others get their turn.
        await asyncio.sleep(60)
        before = len(bench.observed)
        assert before >= 20
        await asyncio.sleep(60)
        assert 12 * ROUNDS <= len(bench.observed) - before <= 24 * ROUNDS, "the rig waits 2.5 to 5 s by then"

    bench = Bench(decide)
    run(bench, scenario)


def test_a_defect_that_one_pass_brings_to_light_does_not_stop_the_worker() -> None:
    def decide(_: Observed) -> Outcome:
        if len(bench.observed) < 3:
            raise RuntimeError("a defect")
        return Outcome((), (), {"at": "last"})

    async def scenario(bench: Bench) -> None:
        await asyncio.sleep(10)
        assert bench.status() == {"at": "last"}
        assert bench.rig.telemetry.reconciles.values["error",] == 2

    bench = Bench(decide)
    run(bench, scenario)


def test_retry_after_is_honoured() -> None:
    async def scenario(bench: Bench) -> None:
        bench.api.coming.append(Fault.THROTTLED)
        await asyncio.sleep(0.5)
        assert bench.status() is None
        await asyncio.sleep(3)
        assert bench.status() == {"a": 1}

    run(Bench(lambda _: Outcome((), (), {"a": 1})), scenario)


def test_a_worker_without_the_lease_stops_for_good() -> None:
    async def scenario(bench: Bench) -> None:
        bench.api.dead = True
        await asyncio.sleep(100)
        assert bench.rig.telemetry.reconciles.values["not_leader",] <= 2
        assert bench.server.writes == []

    run(Bench(lambda _: Outcome((), (), {"a": 1})), scenario)


def test_an_owner_that_is_gone_gets_no_children_again() -> None:
    def decide(observed: Observed) -> Outcome:
        if observed.md.get("status") and not observed.children:
            bench.server.delete("modeldeployments", *KEY)
        return Outcome((child(observed, data={"a": "1"}),), (), {"a": 1})

    async def scenario(bench: Bench) -> None:
        await asyncio.sleep(1)
        assert bench.status() == {"a": 1}
        before = len(bench.server.writes)
        bench.server.delete("configmaps", "team", "c")
        await asyncio.sleep(5)
        assert bench.server.get("modeldeployments", *KEY) is None
        assert bench.server.writes[before:] == []

    bench = Bench(decide)
    run(bench, scenario)


def test_children_of_an_owner_that_went_before_its_first_status_are_made_once_and_collected() -> None:
    def decide(observed: Observed) -> Outcome:
        if len(bench.observed) == 1:
            bench.server.delete("modeldeployments", *KEY)
        return Outcome((child(observed, data={"a": "1"}),), (), {"a": 1})

    async def scenario(bench: Bench) -> None:
        await asyncio.sleep(5)
        assert bench.server.writes == ["POST configmaps team/c"]
        bench.server.collect_garbage()
        await asyncio.sleep(5)
        assert bench.server.writes == ["POST configmaps team/c"]
        assert bench.server.list("configmaps") == []

    bench = Bench(decide)
    run(bench, scenario)


def test_a_final_outcome_is_looked_at_once_and_one_with_problems_again() -> None:
    def decide(observed: Observed) -> Outcome:
        told = {"problems": [problem.reason for problem in observed.problems]}
        return Outcome((child(observed, data={"a": "1"}),), (), told, final=not observed.children)

    async def scenario(bench: Bench) -> None:
        await asyncio.sleep(1)
        assert len(bench.observed) == 1
        assert bench.status() == {"problems": []}
        bench.server.create("configmaps", {"metadata": {"name": "c", "namespace": "other"}, "data": {"theirs": "1"}})
        bench.server.create("modeldeployments", {"metadata": {"name": "m", "namespace": "other"}, "spec": {}})
        await asyncio.sleep(1)
        other = bench.server.get("modeldeployments", "other", "m")
        assert other
        assert other["status"] == {"problems": ["NameConflict"]}

    run(Bench(decide), scenario)
