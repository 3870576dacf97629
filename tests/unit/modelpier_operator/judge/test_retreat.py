"""The way back out of a Replace in a full cluster, begun at every moment of it: at most one pod less than asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modelpier_operator import names
from modelpier_server.contract import FailureReason
from support.builders import conditions, md
from support.simulation import Operator, pod_set
from support.world import Behaviour, DictStore, Object, World, gpus_of

ONE, TWO, THREE = ({"uri": f"s3://models/{name}/model.onnx"} for name in ("one", "two", "three"))


def operator(replicas: int) -> Operator:
    made = Operator(md(model=ONE, replicas=replicas, gpu=1), World(DictStore(), nodes={"n1": replicas}))
    made.settle()
    return made


def is_ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])


def behind_service(subject: Operator) -> int:
    return sum(is_ready(p) for p in subject.world.pods(pod_set(subject.outcomes[-1])))


def spoil(subject: Operator) -> None:
    """What was served becomes useless: the next pod of it fails again and again."""
    subject.world.models[TWO["uri"]] = Behaviour(FailureReason.MODEL_INVALID)


def go_back(subject: Operator) -> None:
    subject.edit(model=ONE)


def go_on(subject: Operator) -> None:
    subject.edit(model=THREE)


def watch(subject: Operator, seconds: int, least: int) -> None:
    for _ in range(seconds):
        subject.run()
        subject.world.tick()
        assert behind_service(subject) >= least, subject.world.second
        assert sum(gpus_of(p) for p in subject.world.pods() if p["spec"].get("nodeName")) <= least + 1


def length(replicas: int) -> int:
    """Seconds of an undisturbed Replace."""
    subject = operator(replicas)
    begin = subject.world.second
    subject.edit(model=TWO)
    while not (conditions(subject.md["status"])["Ready"] == "True/Serving" and subject.world.second > begin + 5):
        watch(subject, 1, replicas - 1)
    return subject.world.second - begin


@pytest.mark.parametrize("replicas", [2, 3])
@pytest.mark.parametrize("turn", [go_back, go_on, spoil])
def test_a_turn_at_any_moment_takes_at_most_one_pod(replicas: int, turn: Callable[[Operator], None]) -> None:
    for moment in range(length(replicas) + 2):
        subject = operator(replicas)
        subject.edit(model=TWO)
        watch(subject, moment, replicas - 1)
        turn(subject)
        watch(subject, 60 + 40 * replicas, replicas - 1)
        told = conditions(subject.md["status"])
        assert told["Available"] == "True/Serving"
        assert told["Ready"] in {"True/Serving", "False/ModelInvalid"}
        assert behind_service(subject) == replicas
        assert len({p["metadata"]["labels"][names.LABEL_POD_SET] for p in subject.world.pods()}) == 1


@pytest.mark.parametrize("replicas", [2, 3])
def test_a_new_pod_that_breaks_at_any_moment_takes_nobody_else_with_it(replicas: int) -> None:
    """The last new pod fails for good while all the others are new ones already."""
    for moment in range(length(replicas)):
        subject = operator(replicas)
        subject.edit(model=TWO)
        watch(subject, moment, replicas - 1)
        spoil(subject)
        young = [p for p in subject.world.pods() if not is_ready(p)]
        for pod in young:
            subject.world.crash(pod)
        watch(subject, 60 + 40 * replicas, replicas - 1)
        assert behind_service(subject) == replicas


def test_a_single_gpu_changes_hands() -> None:
    """One GPU: the only pod that serves has to go before the old one can come."""
    subject = operator(1)
    subject.edit(model=TWO)
    for _ in range(20):
        subject.run()
        subject.world.tick()
    subject.edit(model=ONE)
    subject.settle()
    assert conditions(subject.md["status"])["Ready"] == "True/Serving"
    assert behind_service(subject) == 1


def test_old_pods_stay_while_the_service_cannot_be_written() -> None:
    """The promotion is remembered, the Service is not written: its endpoints are the old pods alone."""
    subject = Operator(md(model=ONE, replicas=1))
    subject.settle()
    old = pod_set(subject.outcomes[-1])
    subject.edit(model=TWO)
    while pod_set(subject.judge()) == old:
        subject.run()
        subject.world.tick()
    (service,) = subject.world.store.list("Service")
    for _ in range(20):
        subject.run()
        subject.world.store.put(service)  # every write of it is lost
        subject.world.tick()
        assert sum(is_ready(p) for p in subject.world.pods(old)) == 1
        assert subject.outcomes[-1].requeue_after
    subject.run()
    written = subject.world.second
    while subject.world.store.get("Deployment", "team", str(old)):
        subject.world.tick()
        subject.run()
    assert subject.world.second == written + 5


@pytest.mark.parametrize("rolling", [False, True])
def test_a_revision_that_somebody_deleted_takes_nothing_along_that_serves(rolling: bool) -> None:
    subject = Operator(md(model=ONE, replicas=2))
    subject.settle()
    (revision,) = subject.world.store.list("ControllerRevision")
    if rolling:
        subject.edit(model=TWO)
        subject.run()
        subject.world.tick()
    subject.world.store.remove(revision)
    for _ in range(60):
        subject.run()
        assert behind_service(subject) >= 1
        subject.world.tick()
    assert conditions(subject.md["status"])["Ready"] == "True/Serving"
    assert len(subject.world.store.list("Deployment")) == 1


def test_a_revision_whose_deployment_is_refused_is_given_up_and_not_asked_for_again() -> None:
    subject = Operator(md(model=ONE, replicas=1, rollout={"progressDeadlineSeconds": 100}))
    subject.settle()
    subject.edit(model=TWO)
    subject.run()
    for _ in range(120):
        for made in subject.world.store.list("Deployment"):
            if made["metadata"]["name"] != pod_set(subject.outcomes[-1]):
                subject.world.store.remove(made)  # as if an admission webhook had refused it
        subject.world.tick()
        subject.run()
    assert conditions(subject.md["status"])["Stalled"].startswith("True/")
    assert [c["kind"] for c in subject.outcomes[-1].children].count("Deployment") == 1
    assert behind_service(subject) == 1
