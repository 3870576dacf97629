"""Swap, second by second: the pods that serve take the new revision as well, and turn to it once all of them can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from modelpier_operator import names
from modelpier_server import contract
from modelpier_server.contract import FailureReason, Role
from support.builders import OTHER_KEYS, conditions, md, settings
from support.simulation import Operator, pod_set
from support.world import Behaviour, DictStore, Object, World, gpus_of

ONE, TWO, THREE = ({"uri": f"s3://models/{name}/model.onnx"} for name in ("one", "two", "three"))


def operator(replicas: int = 1, *, gpus: int | None = None, sees_nodes: bool = True, **spec: Any) -> Operator:
    """As many GPUs as there are replicas: nothing fits beside them."""
    world = World(DictStore(), nodes={"n1": replicas if gpus is None else gpus})
    made = Operator(md(replicas=replicas, gpu=1, model=ONE, **spec), world, sees_nodes=sees_nodes)
    made.settle()
    assert ready(made) == "True/Serving"
    return made


def watch(subject: Operator, seconds: int, look: Callable[[], None] = lambda: None) -> None:
    for _ in range(seconds):
        subject.run()
        subject.world.tick()
        look()


def ready(subject: Operator) -> str:
    return conditions(subject.md["status"])["Ready"]


def rollout(subject: Operator) -> Mapping[str, Any]:
    told: Mapping[str, Any] = subject.md["status"]["rollout"]
    return told


def row(subject: Operator, number: int) -> Mapping[str, Any]:
    found: Mapping[str, Any] = subject.md["status"]["revisions"][number]
    return found


def answering(subject: Operator) -> list[set[str]]:
    """For each pod that takes requests: the URIs that they may be answered by."""
    found = []
    for pod in subject.world.pods(pod_set(subject.outcomes[-1])):
        server = subject.world.servers.get(pod["metadata"]["uid"])
        if server and server.plan and _is_ready(pod):
            found.append({m.uri for m in server.plan.models if m.weight})
    return found


def _is_ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])


def pods(subject: Operator) -> set[str]:
    return {p["metadata"]["uid"] for p in subject.world.pods()}


@pytest.mark.parametrize("replicas", [1, 3])
def test_the_same_pods_turn_to_the_new_revision_without_another_gpu(replicas: int) -> None:
    subject = operator(replicas)
    before, seen = pods(subject), []
    subject.edit(model=TWO)

    def full_strength() -> None:
        assert pods(subject) == before
        assert len(answering(subject)) == replicas
        seen.append(sum(answers == {TWO["uri"]} for answers in answering(subject)))

    watch(subject, 30, full_strength)
    assert ready(subject) == "True/Serving"
    assert rollout(subject)["strategy"] == "Swap"
    assert "can take the new revision as well" in rollout(subject)["reason"]
    assert seen == sorted(seen), "no pod turns back"
    assert (seen[0], seen[-1]) == (0, replicas)
    assert len(subject.world.store.list("Deployment")) == 1
    assert [m.uri for s in subject.world.servers.values() if s.plan for m in s.plan.models] == [TWO["uri"]] * replicas


def test_what_is_told_on_the_way() -> None:
    subject = operator(2)
    subject.edit(model=TWO)
    watch(subject, 3)
    told = conditions(subject.md["status"])
    assert (told["Ready"], told["Available"]) == ("False/RollingOut", "True/Serving")
    assert (rollout(subject)["phase"], rollout(subject)["strategy"]) == ("Swapping", "Swap")
    stable, candidate = row(subject, 0), row(subject, 1)
    assert stable["podSet"] == candidate["podSet"]
    assert (stable["weight"], stable["phase"], stable["readyReplicas"]) == (100, "Serving", 2)
    assert (candidate["weight"], candidate["phase"], candidate["readyReplicas"]) == (0, "Starting", 0)
    subject.settle()
    assert [r["weight"] for r in subject.md["status"]["revisions"]] == [100]
    assert conditions(subject.md["status"])["ModelResolved"] == "True/DigestPinned"


def test_a_candidate_takes_no_requests_before_all_pods_have_it() -> None:
    subject = operator(3)
    subject.world.uneven = True
    subject.edit(model=TWO)

    def look() -> None:
        holding = sum(
            subject.world.reports()[p["metadata"]["uid"]].models[-1].state is contract.ModelState.READY
            for p in subject.world.pods()
        )
        if holding < 3:
            assert answering(subject) == [{ONE["uri"]}] * 3

    watch(subject, 60, look)
    assert ready(subject) == "True/Serving"


@pytest.mark.parametrize("reason", [FailureReason.MODEL_INVALID, FailureReason.MODEL_CRASHED])
def test_a_bad_candidate_is_given_up_at_once_and_leaves_the_pods(reason: FailureReason) -> None:
    subject = operator(2)
    subject.world.models[TWO["uri"]] = Behaviour(reason)
    before = pods(subject)
    subject.edit(model=TWO)
    watch(subject, 20, lambda: _unchanged(subject, before))
    told = conditions(subject.md["status"])
    assert (told["Ready"], told["Available"]) == (f"False/{reason.value}", "True/Serving")
    assert told["Degraded"] == told["Stalled"] == f"True/{reason.value}"
    failed = row(subject, 1)
    assert (failed["phase"], failed["weight"], failed["replicas"]) == ("Failed", 0, 0)
    assert [m.uri for s in subject.world.servers.values() if s.plan for m in s.plan.models] == [ONE["uri"]] * 2
    subject.edit(replicas=1)
    subject.settle()
    assert ready(subject) == f"False/{reason.value}", "scaling is no other try"


def _unchanged(subject: Operator, before: set[str]) -> None:
    assert pods(subject) == before
    assert answering(subject) == [{ONE["uri"]}] * len(before)


def test_what_does_not_fit_beside_the_old_one_is_replaced() -> None:
    subject = operator(2)
    subject.world.models[TWO["uri"]] = Behaviour(beside=FailureReason.OUT_OF_MEMORY)
    subject.edit(model=TWO)

    def bounded() -> None:
        assert sum(gpus_of(p) for p in subject.world.pods() if p["spec"].get("nodeName")) <= 2
        assert answering(subject), "one goes, one comes"

    watch(subject, 60, bounded)
    assert ready(subject) == "True/Serving"
    assert rollout(subject)["strategy"] == "Replace"
    assert "do not fit into a pod" in rollout(subject)["reason"]


def test_an_explicit_swap_that_does_not_fit_is_given_up() -> None:
    subject = operator(1, rollout={"strategy": "Swap"})
    subject.world.models[TWO["uri"]] = Behaviour(beside=FailureReason.OUT_OF_MEMORY)
    subject.edit(model=TWO)
    subject.settle()
    assert ready(subject) == "False/OutOfMemory"
    assert answering(subject) == [{ONE["uri"]}]


def test_an_explicit_swap_needs_no_scarcity() -> None:
    subject = operator(2, gpus=8, rollout={"strategy": "Swap"})
    before = pods(subject)
    subject.edit(model=TWO)
    subject.settle()
    assert (ready(subject), pods(subject)) == ("True/Serving", before)


def test_an_explicit_swap_to_other_pods_is_a_replace_and_says_so() -> None:
    subject = operator(1, rollout={"strategy": "Swap"})
    subject.edit(model=TWO, server={"image": "r.example/other:1"})
    subject.settle()
    assert ready(subject) == "True/Serving"
    assert rollout(subject)["strategy"] == "Replace"
    assert "No Swap, because the new revision needs other pods (image)" in rollout(subject)["reason"]


def test_a_surge_that_finds_no_gpu_turns_to_a_swap() -> None:
    subject = operator(2, sees_nodes=False, rollout={"capacityWaitSeconds": 20})
    before = pods(subject)
    subject.edit(model=TWO)
    watch(subject, 10, lambda: None)
    assert rollout(subject)["strategy"] == "Surge"
    subject.settle()
    assert rollout(subject)["strategy"] == "Swap"
    assert "for 20 s" in rollout(subject)["reason"]
    assert (ready(subject), pods(subject)) == ("True/Serving", before)
    assert len(subject.world.store.list("Deployment")) == 1


def test_going_back_in_the_middle_drops_the_candidate() -> None:
    subject = operator(2)
    before = pods(subject)
    subject.edit(model=TWO)
    watch(subject, 3)
    subject.edit(model=ONE)
    watch(subject, 20, lambda: _unchanged(subject, before))
    assert ready(subject) == "True/Serving"
    assert all(len(s.plan.models) == 1 for s in subject.world.servers.values() if s.plan)


def test_a_third_revision_takes_the_candidate_s_place() -> None:
    subject = operator(2)
    before = pods(subject)
    subject.edit(model=TWO)
    watch(subject, 3)
    subject.edit(model=THREE)
    subject.settle()
    assert (ready(subject), pods(subject)) == ("True/Serving", before)
    assert answering(subject) == [{THREE["uri"]}] * 2


def test_there_and_back_again() -> None:
    subject = operator(2)
    before = pods(subject)
    for model in (TWO, ONE, TWO):
        subject.edit(model=model)
        subject.settle()
        assert (ready(subject), pods(subject)) == ("True/Serving", before)
        assert answering(subject) == [{model["uri"]}] * 2


def test_scaling_in_the_middle() -> None:
    subject = operator(2, gpus=3, rollout={"strategy": "Swap"})
    subject.edit(model=TWO)
    watch(subject, 3)
    subject.edit(replicas=3)
    subject.settle()
    assert ready(subject) == "True/Serving"
    assert answering(subject) == [{TWO["uri"]}] * 3
    assert len(subject.world.store.list("Deployment")) == 1


def test_a_pod_that_starts_again_in_the_middle_comes_back_right() -> None:
    subject = operator(2)
    subject.edit(model=TWO)
    watch(subject, 4)
    subject.world.crash(subject.world.pods()[0])
    subject.settle()
    assert ready(subject) == "True/Serving"
    assert answering(subject) == [{TWO["uri"]}] * 2
    assert rollout(subject)["strategy"] == "Swap"


def test_a_swap_mends_what_serves_no_more() -> None:
    subject = operator(1)
    subject.world.models[ONE["uri"]] = Behaviour(FailureReason.MODEL_NOT_FOUND)
    subject.world.crash(subject.world.pods()[0])
    watch(subject, 4)
    assert ready(subject) == "False/ModelNotFound"
    subject.edit(model=TWO, rollout={"progressDeadlineSeconds": 100})
    subject.settle()
    assert ready(subject) == "True/Serving"


def test_another_key_turns_a_swap_into_other_pods() -> None:
    """The servers would refuse the plan that ends it."""
    subject = operator(1, gpus=2)
    subject.edit(model=TWO, rollout={"strategy": "Swap"})
    watch(subject, 3)
    subject.keys = OTHER_KEYS
    subject.settle()
    assert ready(subject) == "True/Serving"
    assert answering(subject) == [{TWO["uri"]}]


def test_an_upgrade_of_the_operator_in_the_middle_restarts_no_pod() -> None:
    subject = operator(1)
    before = pods(subject)
    subject.edit(model=TWO)
    watch(subject, 3)
    subject.settings = settings(server_image="registry.example/server:2")
    subject.settle()
    assert (ready(subject), pods(subject)) == ("True/Serving", before)


@pytest.mark.parametrize("writes", range(8))
def test_a_crash_at_any_write_of_any_pass_ends_the_same(writes: int) -> None:
    for passes in range(1, 12):
        subject = operator(1)
        before = pods(subject)
        subject.edit(model=TWO)
        watch(subject, passes)
        subject.run(writes)
        subject.settle()
        assert (ready(subject), pods(subject)) == ("True/Serving", before), f"cut in pass {passes}"
        assert answering(subject) == [{TWO["uri"]}]
        (deployment,) = subject.world.store.list("Deployment")
        newest = max(subject.world.store.list("ControllerRevision"), key=lambda r: int(r["revision"]))
        assert deployment["metadata"]["annotations"][names.ANNOTATION_REVISION] == newest["metadata"]["name"]


@pytest.mark.parametrize("kind", ["ConfigMap", "Deployment", "ControllerRevision"])
@pytest.mark.parametrize("second", [2, 4, 6, 8])
def test_whatever_somebody_deletes_in_the_middle_something_serves_in_the_end(kind: str, second: int) -> None:
    subject = operator(2, gpus=4, rollout={"strategy": "Swap"})
    subject.edit(model=TWO)
    watch(subject, second)
    for victim in subject.world.store.list(kind):
        subject.world.store.remove(victim)
    if kind == "ControllerRevision":
        watch(subject, 30, lambda: _serves(subject))
    subject.settle()
    assert ready(subject) == "True/Serving"
    assert answering(subject) == [{TWO["uri"]}] * 2


def _serves(subject: Operator) -> None:
    assert answering(subject), "the pods are there, whoever forgot what they are for"


def test_the_candidate_s_plan_gives_it_no_weight() -> None:
    subject = operator(1)
    subject.edit(model=TWO)
    watch(subject, 2)
    (config,) = (c for c in subject.world.store.list("ConfigMap") if contract.PLAN_KEY in c["data"])
    stable, candidate = contract.Plan.decode(config["data"][contract.PLAN_KEY]).models
    assert (stable.uri, stable.role, stable.weight) == (ONE["uri"], Role.REQUIRED, 100)
    assert (candidate.uri, candidate.role, candidate.weight) == (TWO["uri"], Role.CANDIDATE, 0)
    assert config["metadata"]["annotations"][names.ANNOTATION_CANDIDATE] == candidate.revision
