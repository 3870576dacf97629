"""Rollouts second by second in a small world: what must hold at every moment, and how each of them ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from modelpier_operator import names
from modelpier_server.contract import FailureReason
from support.builders import conditions, md, of_kind, settings
from support.simulation import Operator, pod_set
from support.world import Behaviour, DictStore, World, gpus_of

TWO = {"uri": "s3://models/two/model.onnx"}
BROKEN = {"uri": "s3://models/broken/model.onnx"}
OTHER_PODS = {"image": "r.example/other:1"}
"""With it no Swap is possible."""


def operator(gpus: int = 8, *, sees_nodes: bool = True, **spec: Any) -> Operator:
    world = World(DictStore(), nodes={"n1": gpus})
    world.models[BROKEN["uri"]] = Behaviour(FailureReason.MODEL_INVALID)
    made = Operator(md(**spec), world, sees_nodes=sees_nodes)
    made.settle()
    return made


def watch(subject: Operator, seconds: int, look: Callable[[], None] = lambda: None) -> None:
    for _ in range(seconds):
        subject.run()
        subject.world.tick()
        look()


def ready_pods(subject: Operator, pod_set_name: str | None = None) -> int:
    """Pods that take requests: ready ones that the Service selects."""
    found = subject.world.pods(pod_set_name)
    return sum(any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"]["conditions"]) for p in found)


def behind_service(subject: Operator) -> int:
    return ready_pods(subject, pod_set(subject.outcomes[-1]))


def ready(subject: Operator) -> str:
    return conditions(subject.md["status"])["Ready"]


def rollout(subject: Operator) -> Mapping[str, Any]:
    told: Mapping[str, Any] = subject.md["status"]["rollout"]
    return told


def sizes(subject: Operator) -> list[int]:
    return [d["spec"]["replicas"] for d in subject.world.store.list("Deployment")]


def test_surge_never_serves_with_fewer_pods() -> None:
    subject = operator(replicas=3)
    subject.edit(model=TWO)

    def full_strength() -> None:
        assert behind_service(subject) >= 3

    watch(subject, 40, full_strength)
    assert ready(subject) == "True/Serving"
    assert rollout(subject)["strategy"] == "Surge"
    assert sizes(subject) == [3]


def test_surge_moves_the_service_before_old_pods_go() -> None:
    subject = operator(replicas=1)
    old = pod_set(subject.outcomes[-1])
    subject.edit(model=TWO)
    moved: list[int] = []

    def look() -> None:
        if pod_set(subject.outcomes[-1]) != old and not moved:
            moved.append(subject.world.second)
        if moved and subject.world.second < moved[0] + 5:
            assert ready_pods(subject, old) == 1, "endpoints take seconds to propagate"

    watch(subject, 30, look)
    assert moved
    assert not subject.world.pods(old)


def test_a_new_pod_helps_out_when_the_last_old_one_is_lost() -> None:
    subject = operator(replicas=2)
    subject.world.uneven = True
    old = pod_set(subject.outcomes[-1])
    subject.edit(model=TWO)
    while ready_pods(subject) < 3:  # the first of two new pods is ready
        watch(subject, 1)
    for pod in subject.world.pods(old):
        subject.world.crash(pod)
    subject.run()
    assert rollout(subject)["phase"] == "Surging"
    assert behind_service(subject) == 1
    watch(subject, 30)
    assert ready(subject) == "True/Serving"
    assert pod_set(subject.outcomes[-1]) not in {None, old}


@pytest.mark.parametrize("replicas", [1, 2, 3, 5])
def test_replace_never_holds_more_gpus_than_the_spec_asks_for(replicas: int) -> None:
    subject = operator(gpus=8, replicas=replicas, gpu=1, rollout={"strategy": "Replace"})
    subject.edit(model=TWO)

    def bounded() -> None:
        held = sum(gpus_of(p) for p in subject.world.pods() if p["spec"].get("nodeName"))
        assert held <= replicas
        assert behind_service(subject) >= replicas - 1, "one goes, one comes"

    watch(subject, 30 * replicas, bounded)
    assert ready(subject) == "True/Serving"
    assert sizes(subject) == [replicas]


def test_a_full_cluster_makes_auto_replace() -> None:
    subject = operator(gpus=2, replicas=2, gpu=1)
    subject.edit(model=TWO, server=OTHER_PODS)
    subject.settle()
    assert ready(subject) == "True/Serving"
    assert rollout(subject)["strategy"] == "Replace"
    assert "GPU" in rollout(subject)["reason"]
    assert "needs other pods (image)" in rollout(subject)["reason"]


def test_some_free_gpus_make_replace_keep_full_strength() -> None:
    subject = operator(gpus=4, replicas=3, gpu=1)
    subject.edit(model=TWO, server=OTHER_PODS)

    def full_strength() -> None:
        assert behind_service(subject) >= 3
        assert sum(gpus_of(p) for p in subject.world.pods() if p["spec"].get("nodeName")) <= 4

    watch(subject, 80, full_strength)
    assert ready(subject) == "True/Serving"
    assert rollout(subject)["strategy"] == "Replace"


def test_without_sight_of_nodes_a_stuck_surge_turns_to_replace() -> None:
    subject = operator(gpus=2, sees_nodes=False, replicas=2, gpu=1, rollout={"capacityWaitSeconds": 20})
    subject.edit(model=TWO, server=OTHER_PODS)
    watch(subject, 15)
    assert rollout(subject)["strategy"] == "Surge"
    assert behind_service(subject) == 2
    assert ready(subject) == "False/InsufficientGPU"
    subject.settle()
    assert rollout(subject)["strategy"] == "Replace"
    assert "20 s" in rollout(subject)["reason"]
    assert ready(subject) == "True/Serving"


def test_a_surge_that_finds_no_cpu_turns_to_replace_and_says_so() -> None:
    subject = operator(replicas=2, rollout={"capacityWaitSeconds": 20})
    subject.world.cores = 2
    subject.edit(model=TWO, server=OTHER_PODS)
    watch(subject, 15)
    assert rollout(subject)["strategy"] == "Surge"
    subject.settle()
    assert rollout(subject)["strategy"] == "Replace"
    assert "lacked cpu for 20 s" in rollout(subject)["reason"]
    assert ready(subject) == "True/Serving"


def test_an_explicit_surge_never_turns() -> None:
    subject = operator(gpus=1, replicas=1, gpu=1, rollout={"strategy": "Surge", "progressDeadlineSeconds": 100})
    subject.edit(model=TWO)
    watch(subject, 95)
    assert rollout(subject)["strategy"] == "Surge"
    assert behind_service(subject) == 1
    watch(subject, 20)
    assert conditions(subject.md["status"])["Stalled"] == "True/InsufficientGPU"
    assert behind_service(subject) == 1


@pytest.mark.parametrize("strategy", ["Surge", "Replace"])
def test_a_broken_version_leaves_the_old_one_at_full_strength(strategy: str) -> None:
    subject = operator(replicas=2, gpu=1, rollout={"strategy": strategy})
    old = pod_set(subject.outcomes[-1])
    subject.edit(model=BROKEN)
    subject.settle()
    told = conditions(subject.md["status"])
    assert ready(subject) == "False/ModelInvalid"
    assert told["Available"] == "True/Serving"
    assert told["Degraded"] == told["Stalled"] == "True/ModelInvalid"
    assert told["Progressing"] == "False/ModelInvalid"
    assert pod_set(subject.outcomes[-1]) == old
    assert ready_pods(subject, old) == 2
    assert sorted(sizes(subject)) == [0, 2]


def test_a_failed_version_is_not_tried_again_by_scaling_but_by_another_spec() -> None:
    subject = operator(replicas=1)
    subject.edit(model=BROKEN)
    subject.settle()
    tried = subject.world.made
    subject.edit(replicas=2)
    subject.settle()
    assert ready(subject) == "False/ModelInvalid"
    assert behind_service(subject) == 2
    assert subject.world.made == tried + 1, "one more pod of the old revision, none of the broken one"
    subject.world.models.clear()  # the file was repaired
    subject.edit(rollout={"capacityWaitSeconds": 30})
    subject.settle()
    assert ready(subject) == "True/Serving"


def test_a_failed_version_is_tried_again_when_it_is_wanted_again() -> None:
    subject = operator(replicas=1)
    good = subject.md["spec"]["model"]
    for wanted, told in ((BROKEN, "False/ModelInvalid"), (good, "True/Serving")):
        subject.edit(model=wanted)
        subject.settle()
        assert ready(subject) == told
    subject.world.models.clear()
    subject.edit(model=BROKEN)
    subject.settle()
    assert ready(subject) == "True/Serving"


def test_no_progress_until_the_deadline_gives_a_rollout_up(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = operator(replicas=1, rollout={"progressDeadlineSeconds": 100})
    subject.edit(model=TWO, server={"image": "r.example/other:1"})
    works = subject.world._kubelet

    def kubelet(pod: dict[str, Any]) -> None:
        if pod["spec"]["containers"][0]["image"] != "r.example/other:1":  # the new pod's node does nothing
            works(pod)

    monkeypatch.setattr(subject.world, "_kubelet", kubelet)
    watch(subject, 99)
    assert ready(subject) == "False/RollingOut"
    assert subject.outcomes[-1].requeue_after
    watch(subject, 5)
    assert conditions(subject.md["status"])["Stalled"] == "True/DeadlineExceeded"
    assert behind_service(subject) == 1


def test_going_back_in_the_middle_keeps_what_serves() -> None:
    subject = operator(replicas=2)
    good, old = subject.md["spec"]["model"], pod_set(subject.outcomes[-1])
    subject.edit(model=TWO)
    watch(subject, 2)
    subject.edit(model=good)
    watch(subject, 30)
    assert ready(subject) == "True/Serving"
    assert pod_set(subject.outcomes[-1]) == old
    assert sizes(subject) == [2]


def test_flapping_specs_leave_no_sets_behind() -> None:
    subject = operator(replicas=1)
    for number in range(5):
        subject.edit(model={"uri": f"s3://models/v{number}/model.onnx"})
        watch(subject, 2)
        assert len(sizes(subject)) <= 2
    subject.settle()
    assert ready(subject) == "True/Serving"
    assert sizes(subject) == [1]


def test_a_revision_that_comes_back_is_the_newest_again() -> None:
    subject = operator(replicas=1)
    good = subject.md["spec"]["model"]
    for wanted in (TWO, good):
        subject.edit(model=wanted)
        subject.settle()
    numbers = sorted(r["revision"] for r in subject.world.store.list("ControllerRevision"))
    assert numbers == [2, 3]


def test_history_is_kept_to_its_limit() -> None:
    subject = operator(replicas=1, rollout={"revisionHistoryLimit": 2})
    for number in range(6):
        subject.edit(model={"uri": f"s3://models/v{number}/model.onnx"})
        subject.settle()
    kept = sorted(r["revision"] for r in subject.world.store.list("ControllerRevision"))
    assert kept == [5, 6, 7]


def test_scaling_goes_to_both_sets_of_a_surge() -> None:
    subject = operator(replicas=1)
    subject.edit(model=TWO)
    watch(subject, 2)
    subject.edit(replicas=3)
    watch(subject, 1)
    assert sizes(subject) == [3, 3]
    subject.settle()
    assert sizes(subject) == [3]


def test_scaled_to_zero_and_back() -> None:
    subject = operator(replicas=2)
    subject.edit(replicas=0)
    subject.settle()
    assert ready(subject) == "True/ScaledToZero"
    assert conditions(subject.md["status"])["Available"] == "False/ScaledToZero"
    assert not subject.world.pods()
    assert not of_kind(subject.outcomes[-1].children, "PodDisruptionBudget")
    subject.edit(replicas=1)
    subject.settle()
    assert ready(subject) == "True/Serving"


def test_a_version_given_at_zero_has_to_prove_itself_at_the_first_replica() -> None:
    subject = operator(replicas=1)
    old = pod_set(subject.outcomes[-1])
    subject.edit(replicas=0, model=BROKEN)
    subject.settle()
    assert ready(subject) == "True/ScaledToZero"
    subject.edit(replicas=1)
    subject.settle()
    assert ready(subject) == "False/ModelInvalid"
    assert pod_set(subject.outcomes[-1]) == old
    assert behind_service(subject) == 1


def test_a_first_version_that_never_serves_is_tried_for_ever() -> None:
    subject = operator(model=BROKEN, rollout={"progressDeadlineSeconds": 70})
    assert conditions(subject.md["status"])["Stalled"] == "True/ModelInvalid"
    assert sizes(subject) == [1], "there is nothing to fall back to"
    subject.edit(model=TWO)
    subject.settle()
    assert ready(subject) == "True/Serving"
    assert sizes(subject) == [1]


def test_the_first_load_s_digest_is_pinned_for_all_pods() -> None:
    subject = operator(replicas=1)
    subject.world.models[subject.md["spec"]["model"]["uri"]] = Behaviour(digest="sha256:" + "b" * 64)
    subject.edit(replicas=2)  # the file was overwritten meanwhile
    watch(subject, 20)
    told = conditions(subject.md["status"])
    assert told["ModelResolved"] == "True/DigestPinned"
    assert ready(subject) == "False/DigestMismatch"
    assert told["Available"] == "True/Serving"
    assert behind_service(subject) == 1


def test_an_upgrade_of_the_operator_restarts_no_pod() -> None:
    subject = operator(replicas=2)
    before = subject.world.made
    subject.settings = settings(server_image="registry.example/server:2", proxy_env={"HTTPS_PROXY": "http://p:1"})
    subject.settle()
    assert subject.world.made == before
    subject.edit(replicas=3)
    subject.settle()
    images = {p["spec"]["containers"][0]["image"] for p in subject.world.pods()}
    assert images == {"registry.example/server:1"}


def test_an_automatic_runtime_upgrade_surges_to_the_new_image() -> None:
    subject = operator(replicas=1, server={"runtimeUpgrade": "Auto"})
    digest = subject.md["status"]["revisions"][0]["digest"]
    subject.settings = settings(server_image="registry.example/server:2")

    def full_strength() -> None:
        assert behind_service(subject) >= 1

    watch(subject, 30, full_strength)
    assert [p["spec"]["containers"][0]["image"] for p in subject.world.pods()] == ["registry.example/server:2"]
    assert ready(subject) == "True/Serving"
    assert subject.md["status"]["revisions"][0]["digest"] == digest, "another runtime serves the same bytes"


def test_taking_a_runtime_upgrade_back_finds_the_old_pods_again() -> None:
    subject = operator(replicas=1, server={"runtimeUpgrade": "Auto"})
    before = subject.settings
    subject.settings = settings(server_image="registry.example/server:2")
    watch(subject, 2)
    subject.settings = before
    made = subject.world.made
    subject.settle()
    assert subject.world.made == made
    assert [p["spec"]["containers"][0]["image"] for p in subject.world.pods()] == ["registry.example/server:1"]
    assert ready(subject) == "True/Serving"


def test_turning_automatic_upgrades_on_is_no_new_revision_by_itself() -> None:
    subject = operator(replicas=1)
    before = subject.world.made
    subject.edit(server={"runtimeUpgrade": "Auto"})
    subject.settle()
    assert subject.world.made == before
    assert ready(subject) == "True/Serving"


def test_an_operator_whose_clock_is_behind_still_promotes() -> None:
    subject = operator(replicas=1)
    for revision in subject.world.store.list("ControllerRevision"):
        revision["metadata"]["annotations"][names.ANNOTATION_PROMOTED] = "2031-01-01T00:00:00.000000Z"
    subject.edit(model=TWO)
    subject.settle()
    assert ready(subject) == "True/Serving"
    assert sizes(subject) == [1]
