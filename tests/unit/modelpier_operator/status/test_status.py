"""Status tells the truth: a table of situations, what kstatus makes of each, and that nothing changes by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modelpier_operator import names
from modelpier_operator.api.conditions import ConditionType
from modelpier_operator.decide.facts import Observed, Outcome, Problem, Ref
from modelpier_operator.judge import judge
from modelpier_server.contract import FailureReason
from support.builders import DIGEST, KEYS, T0, at, conditions, md, of_kind, pod, report, settings, stamp
from support.simulation import Operator
from support.world import Behaviour, DictStore, World

CRD = Path(__file__).parents[4] / "crds" / "modelpier.dev_modeldeployments.yaml"


def first_pass(**spec: Any) -> Outcome:
    return judge(Observed(md(**spec)), settings(), KEYS, T0)


def seen(outcome: Outcome, *pods: Any, now: float = 1, **more: Any) -> Outcome:
    """The pass after `outcome` was carried out, with these pods in its set."""
    observed = Observed(md(status=outcome.status, **more.pop("spec", {})), children=outcome.children, pods=pods, **more)
    return judge(observed, settings(), KEYS, at(now))


def pod_set(outcome: Outcome) -> str:
    name: str = of_kind(outcome.children, "Deployment")[0]["metadata"]["name"]
    return name


def revision(outcome: Outcome) -> str:
    name: str = of_kind(outcome.children, "ControllerRevision")[0]["metadata"]["name"]
    return name


def test_a_first_pass() -> None:
    status = first_pass().status
    assert status["observedGeneration"] == 1
    assert status["url"] == "http://m.team.svc.cluster.local"
    assert (status["replicas"], status["readyReplicas"]) == (0, 0)
    assert conditions(status) == {
        "Ready": "False/Creating",
        "Available": "False/Creating",
        "Progressing": "True/Creating",
        "Degraded": "False/Healthy",
        "Stalled": "False/Creating",
        "ModelResolved": "False/Creating",
        "Scheduled": "False/Creating",
        "Loaded": "False/Creating",
    }


def test_it_serves() -> None:
    made = first_pass()
    told = report(revision(made), timings={"download": 1.25, "load": 0.5, "warm_up": 0.125})
    ready = pod(pod_set(made), ready=True, created=0, since=3)
    status = seen(made, ready, reports={"uid-m": told, ready["metadata"]["uid"]: told}).status
    assert conditions(status) == {
        "Ready": "True/Serving",
        "Available": "True/Serving",
        "Progressing": "False/Complete",
        "Degraded": "False/Healthy",
        "Stalled": "False/Complete",
        "ModelResolved": "True/DigestPinned",
        "Scheduled": "True/Scheduled",
        "Loaded": "True/Loaded",
    }
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    assert status["timings"] == {"schedule": 3.0, "pull": 0.0, "download": 1.25, "load": 0.5, "warmUp": 0.125}
    (shown,) = status["revisions"]
    assert (shown["weight"], shown["digest"], shown["phase"]) == (100, DIGEST, "Serving")
    assert status["version"] == shown["version"]


def test_the_selector_meets_the_pods_that_take_requests() -> None:
    made = first_pass()
    selected = dict(pair.split("=") for pair in made.status["selector"].split(","))
    assert selected == {names.LABEL_DEPLOYMENT: "m", names.LABEL_POD_SET: pod_set(made)}


def test_scaling_up_is_told_as_such() -> None:
    made = first_pass()
    ready = pod(pod_set(made), ready=True)
    status = seen(made, ready, spec={"replicas": 3, "generation": 2}).status
    assert conditions(status)["Ready"] == "False/Scaling"
    assert conditions(status)["Available"] == "True/Serving"


@pytest.mark.parametrize(
    ("given", "ready", "scheduled"),
    [
        ({"unscheduled": "1 Insufficient nvidia.com/gpu."}, "InsufficientGPU", "False/InsufficientGPU"),
        ({"state": {"waiting": {"reason": "ErrImagePull", "message": "404"}}}, "ImagePullFailed", "True/Scheduled"),
        ({}, "Starting", "True/Scheduled"),
    ],
)
def test_the_root_cause_stands_in_ready(given: dict[str, Any], ready: str, scheduled: str) -> None:
    made = first_pass()
    told = conditions(seen(made, pod(pod_set(made), **given)).status)
    assert told["Ready"] == f"False/{ready}"
    assert told["Progressing"] == f"True/{ready}"
    assert told["Stalled"].startswith("False")
    assert told["Degraded"] == ("False/Healthy" if ready == "Starting" else f"True/{ready}")
    assert told["Scheduled"] == scheduled


def test_the_message_names_the_pod_and_says_what_to_do() -> None:
    made = first_pass()
    lost = pod(pod_set(made), name="m-x", unscheduled="0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    status = seen(made, lost).status
    message = next(c["message"] for c in status["conditions"] if c["type"] == "Ready")
    assert message.startswith("m-x: 0/1 nodes are available")
    assert "Free GPUs" in message


def test_pods_that_may_not_exist_are_told_although_there_is_no_pod() -> None:
    made = first_pass()
    (deployment,) = of_kind(made.children, "Deployment")
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: none"}
    children = tuple({**c, "status": {"conditions": [failure]}} if c is deployment else c for c in made.children)
    status = judge(Observed(md(status=made.status), children=children), settings(), KEYS, at(1)).status
    assert conditions(status)["Ready"] == "False/QuotaExceeded"
    own = {"kind": "Deployment", "name": deployment["metadata"]["name"]}
    replica_set = {"metadata": {"ownerReferences": [own]}, "status": {"conditions": [failure]}}
    assert conditions(seen(made, replica_sets=(replica_set,)).status)["Ready"] == "False/QuotaExceeded"
    own["name"] = "another"
    assert conditions(seen(made, replica_sets=(replica_set,)).status)["Ready"] == "False/Creating"


def test_an_object_that_cannot_be_written_is_told_even_while_all_pods_serve() -> None:
    made = first_pass()
    conflict = Problem(Ref("Service", "m"), "NameConflict", "exists and is not ours")
    status = seen(made, pod(pod_set(made), ready=True), problems=(conflict,)).status
    assert conditions(status)["Ready"] == "False/NameConflict"
    assert conditions(status)["Available"] == "True/Serving"


def test_a_first_model_that_cannot_ever_load_stalls_once_that_is_certain() -> None:
    made = first_pass()
    failed = {"terminated": {"exitCode": 78, "message": '{"reason": "ModelInvalid", "message": "opset 99"}'}}
    for restarts, stalled in ((0, "False"), (1, "False"), (2, "True")):
        told = conditions(seen(made, pod(pod_set(made), last=failed, restarts=restarts)).status)
        assert told["Ready"] == "False/ModelInvalid"
        assert told["Stalled"] == f"{stalled}/ModelInvalid"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"resources": {"podTemplate": {"spec": {"hostNetwork": True}}}}, "PodOverridesForbidden"),
        ({"uri": "ftp://nowhere/m.onnx"}, "SpecInvalid"),
    ],
)
def test_a_spec_that_cannot_be_followed_changes_nothing(spec: dict[str, Any], reason: str) -> None:
    alone = first_pass(**spec)
    assert (alone.children, alone.delete) == ((), ())
    assert conditions(alone.status)["Stalled"] == f"True/{reason}"
    serving = Operator(md(replicas=2))
    before = serving.settle()
    serving.md = md(replicas=2, generation=2, status=serving.md["status"], **spec)
    after = serving.judge()
    assert after.children == before.children
    assert after.delete == ()
    told = conditions(after.status)
    assert told["Ready"] == f"False/{reason}"
    assert told["Stalled"] == f"True/{reason}"
    assert told["Available"] == "True/Serving"


def test_overrides_that_were_allowed_once_go_on_serving() -> None:
    subject = Operator(md(resources={"podTemplate": {"spec": {"hostNetwork": True}}}))
    subject.settings = settings(allow_pod_overrides=True)
    before = subject.settle()
    subject.settings = settings()
    assert subject.judge().children == before.children
    assert conditions(subject.judge().status)["Ready"] == "True/Serving"


def test_weights_while_one_set_replaces_another() -> None:
    subject = Operator(md(replicas=2, gpu=1, rollout={"strategy": "Replace"}), World(DictStore()))
    subject.settle()
    subject.edit(model={"uri": "s3://models/two/model.onnx"})
    weights = set()
    for _ in range(40):
        subject.run()
        subject.world.tick()
        weights.add(tuple(r["weight"] for r in subject.md["status"]["revisions"]))
    assert {(100, 0), (50, 50), (0, 100), (100,)} <= weights


def test_a_condition_s_time_is_that_of_its_last_change() -> None:
    made = first_pass()
    later = seen(made, pod(pod_set(made)), now=60).status
    times = {c["type"]: c["lastTransitionTime"] for c in later["conditions"]}
    assert set(times.values()) == {stamp(0), stamp(60)}
    assert times["Ready"] == stamp(0), "still not ready, for another reason"
    assert times["Scheduled"] == stamp(60)


def test_nothing_changes_by_itself() -> None:
    for subject in (settled(), settled(FailureReason.MODEL_INVALID)):
        early = subject.judge()
        subject.world.second += 100_000
        late = subject.judge()
        assert late.status == early.status
        assert late.children == early.children
        assert not late.delete


def test_every_field_is_in_the_crd() -> None:
    version = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]["properties"]["status"]
    for subject in (settled(), settled(FailureReason.MODEL_INVALID)):
        for outcome in subject.outcomes:
            known(outcome.status, schema, "status")


def test_all_condition_types_are_always_there() -> None:
    for outcome in settled(FailureReason.MODEL_INVALID).outcomes:
        assert [c["type"] for c in outcome.status["conditions"]] == [kind.value for kind in ConditionType]


def settled(reason: FailureReason | None = None) -> Operator:
    """A world in which a second version was rolled out, or failed for `reason`."""
    subject = Operator(md(replicas=2, gpu=1), World(DictStore()))
    subject.settle()
    subject.world.models["s3://models/two/model.onnx"] = Behaviour(reason)
    subject.edit(model={"uri": "s3://models/two/model.onnx"})
    subject.settle()
    return subject


def known(value: Any, schema: Any, path: str) -> None:
    if isinstance(value, dict):
        assert value.keys() <= schema["properties"].keys(), path
        for key, item in value.items():
            known(item, schema["properties"][key], f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            known(item, schema["items"], f"{path}[]")
    else:
        kinds: dict[str, type | tuple[type, ...]] = {"string": str, "integer": int, "number": (int, float)}
        assert isinstance(value, kinds[schema["type"]]), path
