import random
from typing import Any

import pytest
from hypothesis import given

from modelpier_operator import names
from modelpier_operator.api.normalise import normalise
from modelpier_operator.api.v1alpha1 import parse_snapshot, parse_spec
from support.specs import smallest, spec_values


def intent(**sections: Any) -> dict[str, Any]:
    return normalise(parse_spec(smallest(**sections)))


def test_the_smallest_spec_is_its_uri() -> None:
    assert intent() == {"model": {"uri": "s3://models/resnet50/model.onnx"}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"resources": {"cpu": "1500m"}}, {"resources": {"cpu": "1.5"}}),
        ({"resources": {"memory": "1024Mi"}}, {"resources": {"memory": "1Gi"}}),
        ({"resources": {"memory": "2048Mi"}}, {}),
        ({"server": {"batching": {"enabled": True}}}, {}),
        ({"server": {"executionProviders": []}, "resources": {"nodeSelector": {}, "tolerations": []}}, {}),
        ({"server": {"runtimeUpgrade": "Auto"}}, {}),
        ({"replicas": 7, "rollout": {"strategy": "Replace"}}, {}),
        ({"access": {"from": [{"podSelector": {}}]}}, {}),
        (
            {"resources": {"tolerations": [{"key": "gpu", "operator": "Exists", "value": ""}]}},
            {"resources": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}},
        ),
        ({"resources": {"nodeSelector": {"a": "1", "b": "2"}}}, {"resources": {"nodeSelector": {"b": "2", "a": "1"}}}),
    ],
)
def test_one_intent_has_one_form(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert names.digest(intent(**one)) == names.digest(intent(**other))


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"uri": "s3://models/resnet50/2/model.onnx"}},
        {"model": {"uri": "s3://models/resnet50/model.onnx", "version": "2"}},
        {"server": {"threads": 2}},
        {"resources": {"nodeSelector": {"gpu": ""}}},
        {"resources": {"podTemplate": {"spec": {"volumes": [{"name": "scratch", "emptyDir": {}}]}}}},
    ],
)
def test_whatever_changes_what_is_served_makes_another_revision(change: dict[str, Any]) -> None:
    assert names.digest(intent(**change)) != names.digest(intent())


def test_an_override_stays_as_it_was_written() -> None:
    template = {"spec": {"volumes": [{"name": "scratch", "emptyDir": {}}], "nodeName": None}}
    assert intent(resources={"podTemplate": template})["resources"]["podTemplate"] == template


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, "cefb3d8bb2"),
        ({"resources": {"gpu": 1, "memory": "8Gi"}, "server": {"limits": {"maxQueue": 16}}}, "8dd6b0343f"),
    ],
)
def test_hashes_of_released_versions_stay(sections: dict[str, Any], expected: str) -> None:
    """A changed default or form would roll every ModelDeployment there is at the operator's next upgrade."""
    assert names.digest(intent(**sections)) == expected


@given(spec_values)
def test_a_snapshot_reads_back_as_the_same_intent(raw: dict[str, Any]) -> None:
    snapshot = normalise(parse_spec(raw))
    assert normalise(parse_snapshot(snapshot)) == snapshot


@given(spec_values)
def test_the_order_of_fields_means_nothing(raw: dict[str, Any]) -> None:
    assert normalise(parse_spec(shuffled(raw))) == normalise(parse_spec(raw))


def test_a_rule_of_today_does_not_judge_a_snapshot() -> None:
    assert parse_snapshot({"model": {"uri": "ftp://elsewhere/model.onnx"}}).model.uri == "ftp://elsewhere/model.onnx"


def shuffled(value: Any) -> Any:
    if isinstance(value, list):
        return [shuffled(part) for part in value]
    if not isinstance(value, dict):
        return value
    keys = list(value)
    random.Random(len(keys)).shuffle(keys)
    return {key: shuffled(value[key]) for key in keys}
