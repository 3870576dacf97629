"""rollout.rollbackTo: an earlier revision is wanted, whatever the rest of the spec says."""

from __future__ import annotations

from typing import Any

import pytest

from support.builders import OTHER_KEYS, conditions, md, settings
from support.simulation import Operator
from support.world import Behaviour, DictStore, World

ONE, TWO = ({"uri": f"s3://models/{name}/model.onnx"} for name in ("one", "two"))


def operator(**spec: Any) -> Operator:
    made = Operator(md(model=ONE, **spec), World(DictStore()))
    made.settle()
    return made


def serving(subject: Operator) -> str:
    """The revision that carries production."""
    (only,) = subject.md["status"]["revisions"]
    assert only["weight"] == 100
    return str(only["name"])


def ready(subject: Operator) -> str:
    return conditions(subject.md["status"])["Ready"]


@pytest.mark.parametrize("strategy", ["Surge", "Swap", "Replace"])
def test_there_and_on_again(strategy: str) -> None:
    subject = operator()
    first = serving(subject)
    subject.edit(model=TWO, rollout={"strategy": strategy})
    subject.settle()
    second = serving(subject)
    subject.edit(rollout={"strategy": strategy, "rollbackTo": first})
    subject.settle()
    assert (ready(subject), serving(subject)) == ("True/Serving", first)
    assert [m.uri for s in subject.world.servers.values() if s.plan for m in s.plan.models] == [ONE["uri"]]
    subject.edit(model={"uri": "s3://models/three/model.onnx"})
    subject.settle()
    assert serving(subject) == first, "until the field is gone"
    subject.edit(model=TWO, rollout={"strategy": strategy})
    subject.settle()
    assert (ready(subject), serving(subject)) == ("True/Serving", second)


def test_replicas_are_those_of_the_spec() -> None:
    subject = operator()
    first = serving(subject)
    subject.edit(model=TWO)
    subject.settle()
    subject.edit(replicas=3, rollout={"rollbackTo": first})
    subject.settle()
    assert subject.md["status"]["readyReplicas"] == 3


def test_a_revision_that_is_not_there_is_told_with_those_that_are() -> None:
    subject = operator()
    first = serving(subject)
    subject.edit(rollout={"rollbackTo": "m-0000000000"})
    subject.settle()
    told = conditions(subject.md["status"])
    assert (told["Ready"], told["Available"]) == ("False/SpecInvalid", "True/Serving")
    (message,) = {c["message"] for c in subject.md["status"]["conditions"] if c["type"] == "Ready"}
    assert message.startswith(f"rollout.rollbackTo: there is no revision m-0000000000; there are: {first}")
    assert serving(subject) == first


def test_another_file_at_the_uri_is_not_what_was_served() -> None:
    subject = operator()
    first = serving(subject)
    subject.edit(model=TWO)
    subject.settle()
    subject.world.models[ONE["uri"]] = Behaviour(digest="sha256:" + "b" * 64)
    subject.edit(rollout={"rollbackTo": first})
    subject.settle()
    assert ready(subject) == "False/DigestMismatch"
    assert conditions(subject.md["status"])["Available"] == "True/Serving"


def test_the_way_back_from_a_runtime_that_came_by_itself() -> None:
    subject = operator(server={"runtimeUpgrade": "Auto"})
    first = serving(subject)
    subject.settings = settings(server_image="registry.example/server:2")
    subject.settle()
    assert serving(subject) != first
    subject.edit(rollout={"rollbackTo": first})
    subject.settle()
    assert (ready(subject), serving(subject)) == ("True/Serving", first)
    assert [p["spec"]["containers"][0]["image"] for p in subject.world.pods()] == ["registry.example/server:1"]


def test_servers_that_trust_another_key_are_made_anew() -> None:
    subject = operator()
    first = serving(subject)
    subject.edit(model=TWO)
    subject.settle()
    subject.keys = OTHER_KEYS
    subject.edit(rollout={"rollbackTo": first, "revisionHistoryLimit": 0})
    subject.settle()
    assert ready(subject) == "True/Serving"
    assert [m.uri for s in subject.world.servers.values() if s.plan for m in s.plan.models] == [ONE["uri"]]
