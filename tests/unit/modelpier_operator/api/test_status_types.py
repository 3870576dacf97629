"""What the operator writes into status fits the schema: the API server would silently drop what does not."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from modelpier_operator.api.conditions import ConditionType, Reason
from modelpier_operator.api.status import ModelDeploymentStatus
from modelpier_server.contract import FailureReason
from support.builders import conditions, md, settings
from support.simulation import Operator
from support.world import Behaviour, DictStore, World


def life(**spec: Any) -> list[Mapping[str, Any]]:
    """Statuses from the first pass until it serves, through a roll to a model that fails, and asleep."""
    world = World(DictStore(), nodes={"n1": 4, "n2": 4})
    world.models["s3://models/bad/model.onnx"] = Behaviour(FailureReason.MODEL_INVALID)
    operator = Operator(md(rollout={"progressDeadlineSeconds": 60, "capacityWaitSeconds": 10}, **spec), world)
    operator.settle()
    operator.edit(model={"uri": "s3://models/bad/model.onnx"})
    operator.settle()
    operator.edit(replicas=0)
    operator.settle()
    return [outcome.status for outcome in operator.outcomes]


@pytest.mark.parametrize(
    "spec", [{"replicas": 2}, {"gpu": 2, "replicas": 2}, {"gpu": 4, "replicas": 2}], ids=["cpu", "surge", "replace"]
)
def test_every_status_of_a_life_fits(spec: dict[str, Any]) -> None:
    phases = set()
    for status in life(**spec):
        typed = ModelDeploymentStatus.model_validate(status)
        assert typed.model_dump(by_alias=True, exclude_unset=True) == status
        assert typed.conditions
        assert [c.type for c in typed.conditions] == list(ConditionType)
        assert {c.reason for c in typed.conditions} <= set(Reason)
        phases.add(status["rollout"]["phase"])
    assert {"First", "Complete", "Failed"} <= phases


def test_a_field_that_the_schema_lacks_is_found() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        ModelDeploymentStatus.model_validate({"observedGeneration": 1, "surprise": 1})


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        ({"uri": "s3:/x"}, "SpecInvalid", "spec.model.uri: must begin with s3://"),
        ({"uri": "pvc://a..b/m.onnx"}, "SpecInvalid", "spec.model.uri: a..b is no name of a PersistentVolumeClaim"),
        (
            {"resources": {"podTemplate": {"spec": {"volumes": [{"name": "x", "emptyDir": {"sizeLimit": "big"}}]}}}},
            "SpecInvalid",
            "spec.resources.podTemplate.spec.volumes.0.emptyDir.sizeLimit: 'big' is not a quantity",
        ),
    ],
)
def test_a_spec_that_came_around_the_crd_is_told_and_stalls(spec: dict[str, Any], reason: str, message: str) -> None:
    operator = Operator(md(**spec), settings=settings(allow_pod_overrides=True))
    outcome = operator.judge()
    assert outcome.children == ()
    ready = next(c for c in outcome.status["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert ready["message"].startswith(message)
    assert conditions(outcome.status)["Stalled"].startswith("True")
    ModelDeploymentStatus.model_validate(outcome.status)
