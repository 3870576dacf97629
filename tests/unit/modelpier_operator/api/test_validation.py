from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from modelpier_operator.api.v1alpha1 import parse_spec
from modelpier_operator.api.validation import faults, from_error
from modelpier_server.repository import uri as server_uri
from support.specs import smallest, spec_values


def found(name: str = "resnet50", **sections: Any) -> list[str]:
    return [str(fault) for fault in faults(name, parse_spec(smallest(**sections)))]


def said(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as refused:
        parse_spec(raw)
    return [str(fault) for fault in from_error(refused.value)]


def test_a_good_spec_has_no_fault() -> None:
    assert found() == []


@given(spec_values)
def test_nor_has_any_other(raw: dict[str, Any]) -> None:
    assert faults("resnet50", parse_spec(raw)) == ()


def test_a_name_that_came_around_the_crd() -> None:
    assert found(name="1st")[0].startswith("metadata.name: becomes the name of a Service")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("pvc://a..b/m.onnx", "a..b is no name of a PersistentVolumeClaim; write pvc://CLAIM/PATH"),
        ("pvc://a.-b/m.onnx", "a.-b is no name of a PersistentVolumeClaim; write pvc://CLAIM/PATH"),
        ("https://host:99999/m.onnx", "not a URL: Port out of range 0-65535; write https://HOST[:PORT]/PATH"),
        ("https://[::1/m.onnx", "not a URL: Invalid IPv6 URL; write https://HOST[:PORT]/PATH"),
        ("https://:80/m.onnx", "names no host; write https://HOST[:PORT]/PATH"),
        ("https://host/%2e%2e/m.onnx", 'the path must have no empty, "." or ".." part; write it without them'),
        ("file:///%2e%2e/m.onnx", 'the path must have no empty, "." or ".." part; write it without them'),
        ("s3://bucket/a?/../b", 'the path must have no empty, "." or ".." part; write it without them'),
        ("s3://bucket/a\u200bb", "holds characters that cannot be printed; copy it again without them"),
    ],
)
def test_a_uri_that_no_pattern_catches(uri: str, message: str) -> None:
    assert found(model={"uri": uri}) == [f"spec.model.uri: {message}"]


URIS = st.builds(
    lambda scheme, authority, path: f"{scheme}://{authority}{path}",
    st.sampled_from(["s3", "hf", "pvc", "http", "https", "file", "ftp", ""]),
    st.sampled_from(
        ["", "bucket", "a", "Bucket", "org/repo", "org/repo@v1", "a.b", "a..b", "host:80", "h:x", "u@h", "-", "[::1]"]
    ),
    st.lists(
        st.sampled_from(["", "a", "b.onnx", ".", "..", "%2e%2e", "a b", "?q=1", "#f", "@", "%2F", "\u200b", "%00"]),
        max_size=4,
    ).map(lambda parts: "".join(f"/{part}" for part in parts)),
)


@settings(max_examples=500)
@given(URIS)
def test_the_server_understands_whatever_is_accepted(uri: str) -> None:
    try:
        accepted = not faults("m", parse_spec({"model": {"uri": uri}}))
    except ValidationError:
        accepted = False
    if accepted:
        assert server_uri.parse(uri).scheme == uri.partition("://")[0]


@pytest.mark.parametrize(
    ("resources", "where"),
    [
        ({"nodeSelector": {"a/b/c": "x"}}, "spec.resources.nodeSelector.a/b/c"),
        ({"nodeSelector": {"": "x"}}, "spec.resources.nodeSelector."),
        ({"nodeSelector": {"UPPER.io/x": "x"}}, "spec.resources.nodeSelector.UPPER.io/x"),
        ({"tolerations": [{"key": "a b", "operator": "Exists"}]}, "spec.resources.tolerations.0.key"),
    ],
)
def test_a_key_that_is_no_label(resources: dict[str, Any], where: str) -> None:
    (fault,) = faults("m", parse_spec(smallest(resources=resources)))
    assert fault.field == where
    assert "write NAME or PREFIX/NAME" in fault.remedy


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ({"metadata": {"labels": {"modelpier.dev/pod-set": "x"}}}, "metadata.labels.modelpier.dev/pod-set: belongs to"),
        ({"metadata": {"annotations": {"a b": "x"}}}, "metadata.annotations.a b: is no key of a label"),
        ({"spec": {"containers": {"server": {}}}}, "spec.containers: must be a list of containers with names; call"),
        (
            {"spec": {"initContainers": [{"image": "x"}]}},
            "spec.initContainers: must be a list of containers with names",
        ),
        ({"spec": {"volumes": ["scratch"]}}, "spec.volumes: must be a list of volumes with names"),
        (
            {"spec": {"containers": [{"name": "server", "resources": {"limits": {"cpu": "two"}}}]}},
            "spec.containers.0.resources.limits.cpu: 'two' is not a quantity: write it as 500m",
        ),
        (
            {"spec": {"containers": [{"name": "server", "resources": {"limits": []}}]}},
            None,
        ),
        (
            {"spec": {"containers": [{"name": "server", "resources": {"requests": ["cpu"]}}]}},
            "spec.containers.0.resources.requests: must be an object; write cpu: 500m",
        ),
        (
            {"spec": {"containers": [{"name": "server", "resources": "2"}]}},
            "spec.containers.0.resources: must be an object",
        ),
        (
            {"spec": {"volumes": [{"name": "x", "emptyDir": {"sizeLimit": "-1"}}]}},
            "spec.volumes.0.emptyDir.sizeLimit: '-1' is not a quantity",
        ),
    ],
)
def test_an_override_that_could_not_be_merged(template: dict[str, Any], text: str | None) -> None:
    texts = found(resources={"podTemplate": template})
    if text is None:
        assert texts == []
    else:
        assert texts[0].startswith(f"spec.resources.podTemplate.{text}")


def test_what_pydantic_says_names_the_field_as_users_write_it() -> None:
    raw = smallest(model={"uri": "s3:/x"}, server={"limits": {"maxQueue": 0}})
    schemes = "s3://, hf://, pvc://, https://, http:// or file://"
    assert said(raw) == [
        f"spec.model.uri: must begin with {schemes}, as in s3://bucket/resnet50/model.onnx",
        "spec.server.limits.maxQueue: Input should be greater than or equal to 1",
    ]


def test_a_rule_over_sections_names_the_field_too() -> None:
    raw = smallest(server={"executionProviders": [{"name": "CUDAExecutionProvider"}]})
    (text,) = said(raw)
    assert text.startswith("spec.server.executionProviders: names a provider that needs a GPU: set resources.gpu to 1")


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        ({}, "podSelector: a peer without podSelector, namespaceSelector and ipBlock is nobody: write one of them"),
        ({"podSelector": {}, "ipBlock": {"cidr": "::/0"}}, "ipBlock: stands alone: make a peer of its own for"),
        ({"ipBlock": {"cidr": "198.18.0.1/16"}}, "ipBlock.cidr: write the first address of a range and the length"),
        ({"ipBlock": {"cidr": "::/0", "except": ["::/0"]}}, "ipBlock.except: each is a part of cidr, smaller than it"),
        (
            {"namespaceSelector": {"matchLabels": {"a/b/c": "x"}}},
            "namespaceSelector.matchLabels: a/b/c is no key of a label; write NAME or PREFIX/NAME",
        ),
        (
            {"podSelector": {"matchExpressions": [{"key": f"{'a' * 254}/b", "operator": "Exists"}]}},
            f"podSelector.matchExpressions.0.key: {'a' * 254}/b is no key of a label; write NAME or PREFIX/NAME",
        ),
    ],
)
def test_a_peer_that_no_policy_may_have(peer: dict[str, Any], text: str) -> None:
    assert said(smallest(access={"from": [peer]}))[0].startswith(f"spec.access.from.0.{text}")
