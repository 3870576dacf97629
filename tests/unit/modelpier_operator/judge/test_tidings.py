"""What is told as Events, and that each of them is told once."""

from __future__ import annotations

import pytest

from modelpier_operator.decide.facts import Tiding
from modelpier_server.contract import FailureReason
from support.builders import md
from support.simulation import Operator
from support.world import Behaviour, DictStore, World

ONE, TWO, BROKEN = ({"uri": f"s3://models/{name}/model.onnx"} for name in ("one", "two", "broken"))


def operator(replicas: int = 1, gpus: int = 8) -> Operator:
    world = World(DictStore(), nodes={"n1": gpus})
    world.models[BROKEN["uri"]] = Behaviour(FailureReason.MODEL_INVALID)
    made = Operator(md(replicas=replicas, gpu=1, model=ONE, rollout={"progressDeadlineSeconds": 300}), world)
    made.settle()
    return made


def told(subject: Operator) -> list[tuple[str, str]]:
    return [(tiding.kind, tiding.reason) for tiding in subject.told.values()]


def only(subject: Operator, reason: str) -> Tiding:
    (found,) = [tiding for tiding in subject.told.values() if tiding.reason == reason]
    return found


def test_a_creation_that_goes_well_is_no_news() -> None:
    assert told(operator(3)) == []


def test_a_rollout_is_told_from_its_beginning_to_its_end() -> None:
    subject = operator()
    subject.edit(model=TWO)
    subject.settle()
    assert told(subject) == [("Normal", "RolloutStarted"), ("Normal", "Promoted")]
    name = subject.md["status"]["revisions"][0]["name"]
    version = subject.md["status"]["version"]
    assert only(subject, "RolloutStarted").message.startswith(f"Revision {name} (version {version}): Surge. There is")
    assert only(subject, "Promoted").message == f"Revision {name} (version {version}) serves."


def test_a_change_of_strategy_is_told() -> None:
    subject = operator(gpus=1)
    subject.sees_nodes = False
    subject.edit(model=TWO, rollout={"capacityWaitSeconds": 20, "progressDeadlineSeconds": 300})
    subject.settle()
    started = [t.message for t in subject.told.values() if t.reason == "RolloutStarted"]
    assert [message.split(": ")[1].split(".")[0] for message in started] == ["Surge", "Swap"]
    assert ("Warning", "InsufficientGPU") in told(subject)
    assert told(subject)[-1] == ("Normal", "Promoted")


@pytest.mark.parametrize("gpus", [8, 1])
def test_the_end_of_a_bad_revision_is_told_with_its_reason(gpus: int) -> None:
    subject = operator(gpus=gpus)
    subject.edit(model=BROKEN)
    subject.settle()
    assert told(subject)[0] == ("Normal", "RolloutStarted")
    assert told(subject)[-1] == ("Warning", "RolloutFailed")
    assert "was given up: ModelInvalid." in only(subject, "RolloutFailed").message


def test_going_back_is_told() -> None:
    subject = operator()
    subject.edit(model=TWO)
    for _ in range(3):
        subject.run()
        subject.world.tick()
    subject.edit(model=ONE)
    subject.settle()
    assert told(subject) == [("Normal", "RolloutStarted"), ("Normal", "RolloutWithdrawn")]
    assert "is not wanted any more; revision" in only(subject, "RolloutWithdrawn").message


def test_what_is_wrong_is_told_once_for_a_spec() -> None:
    subject = operator()
    subject.edit(replicas=3)
    subject.world.nodes = {"n1": 1}
    subject.settle()
    assert told(subject) == [("Warning", "InsufficientGPU")]
    for _ in range(5):  # it comes and goes
        subject.world.nodes = {"n1": 8}
        subject.settle()
        subject.world.nodes = {"n1": 1}
        subject.settle()
    assert told(subject) == [("Warning", "InsufficientGPU")]


def test_a_spec_that_cannot_be_followed_is_told() -> None:
    subject = operator()
    subject.edit(resources={"podTemplate": {"spec": {}}})
    subject.settle()
    assert told(subject) == [("Warning", "PodOverridesForbidden")]


@pytest.mark.parametrize("writes", range(7))
def test_a_crash_tells_nothing_twice_and_forgets_nothing(writes: int) -> None:
    for passes in range(1, 14):
        subject = operator()
        subject.edit(model=TWO)
        for number in range(passes):
            subject.run(writes if number == passes - 1 else None)
            subject.world.tick()
        subject.settle()
        assert told(subject) == [("Normal", "RolloutStarted"), ("Normal", "Promoted")]


def test_steady_states_have_nothing_to_tell() -> None:
    subject = operator()
    for model in (TWO, BROKEN):
        subject.edit(model=model)
        subject.settle()
        assert subject.judge().tidings == ()
