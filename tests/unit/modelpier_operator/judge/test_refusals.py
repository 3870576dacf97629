"""A Deployment that the API server refuses for ever: what serves goes on, what serves nobody goes."""

from __future__ import annotations

import pytest

from modelpier_operator import names
from support.builders import conditions, md
from support.simulation import Operator
from support.world import DictStore, Object, World

REFUSED = {"uri": "s3://models/refused/model.onnx"}, {"cpu": "3"}
ROLLOUT = {"progressDeadlineSeconds": 60, "capacityWaitSeconds": 10}


def refused(deployment: Object) -> bool:
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    return bool(container["resources"]["requests"]["cpu"] == REFUSED[1]["cpu"])


def operator(replicas: int = 1, **spec: object) -> Operator:
    world = World(DictStore(), nodes={"n1": replicas})
    return Operator(md(replicas=replicas, rollout=ROLLOUT, **spec), world, refuses=refused)  # type: ignore[arg-type]


def go_on(subject: Operator, seconds: int, least: int = 0) -> None:
    for _ in range(seconds):
        subject.run()
        subject.world.tick()
        assert ready(subject) >= least, subject.world.second


def ready(subject: Operator) -> int:
    conditions = (c for p in subject.world.pods() for c in p["status"]["conditions"])
    return sum((c["type"], c["status"]) == ("Ready", "True") for c in conditions)


def deployments(subject: Operator) -> list[str]:
    return [d["metadata"]["annotations"][names.ANNOTATION_REVISION] for d in subject.world.store.list("Deployment")]


def ask_for_refused(subject: Operator, **resources: object) -> None:
    subject.edit(model=REFUSED[0], resources={**REFUSED[1], **resources})


def test_it_keeps_no_set_alive_that_serves_nobody() -> None:
    subject = operator()
    subject.settle()
    [stable] = deployments(subject)
    subject.edit(model={"uri": "s3://models/slow/model.onnx"}, resources={"nodeSelector": {"no": "such"}})
    go_on(subject, 3, least=1)
    assert len(deployments(subject)) == 2
    ask_for_refused(subject)
    go_on(subject, 5, least=1)
    assert subject.problems
    assert deployments(subject) == [stable], "before the refused one is given up"
    go_on(subject, 80, least=1)
    assert conditions(subject.md["status"])["Stalled"].startswith("True")
    assert not subject.problems, "it is asked for no more"


@pytest.mark.parametrize("replicas", [1, 2])
def test_no_old_pod_makes_room_for_it(replicas: int) -> None:
    subject = operator(replicas, gpu=1)
    subject.settle()
    ask_for_refused(subject, gpu=1)
    go_on(subject, 100, least=replicas)
    told = conditions(subject.md["status"])
    assert (told["Available"], told["Stalled"]) == ("True/Serving", "True/DeadlineExceeded")


@pytest.mark.parametrize("replicas", [0, 1])
def test_what_never_served_holds_no_resources_meanwhile(replicas: int) -> None:
    subject = operator()
    go_on(subject, 2)
    assert subject.world.pods()
    ask_for_refused(subject)
    subject.edit(replicas=replicas)
    go_on(subject, 20)
    assert subject.problems
    assert not subject.world.pods()
