from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpier_operator.cluster.compare import contains, merge_patch, stamped
from modelpier_operator.names import ANNOTATION_APPLIED
from support.api import merge

JSON = st.recursive(
    st.booleans() | st.integers(0, 3) | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from("xyz"), JSON, max_size=3)

PEER: dict[str, Any] = {"podSelector": {}}


@pytest.mark.parametrize(
    ("live", "wanted", "same"),
    [
        ({"a": 1, "default": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({}, {"a": "", "b": None, "c": {}, "d": []}, True),
        ({"a": [{"x": 1, "y": 2}]}, {"a": [{"x": 1}]}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": [2, 1]}, {"a": [1, 2]}, False),
        ({"a": "text"}, {"a": {}}, False),
        (None, {"a": 1}, False),
        ({"selector": {"a": "1", "b": "2"}}, {"selector": {"a": "1"}}, False),
        ({"podSelector": {"matchLabels": {"a": "1", "b": "2"}}}, {"podSelector": {"matchLabels": {"a": "1"}}}, False),
        ({"ingress": [{"ports": [], "from": [PEER]}]}, {"ingress": [{"ports": []}]}, False),
        ({"ingress": [{"from": [PEER | {"namespaceSelector": {}}]}]}, {"ingress": [{"from": [PEER]}]}, False),
        ({"ingress": [{"from": [PEER]}]}, {"ingress": [{"from": [PEER]}]}, True),
    ],
)
def test_contains(live: Any, wanted: Any, *, same: bool) -> None:
    assert contains(live, wanted) is same


@given(JSON)
def test_everything_contains_itself(value: Any) -> None:
    assert contains(value, value)


@given(old=OBJECTS, new=OBJECTS)
def test_a_merge_patch_of_old_gives_new(old: Any, new: Any) -> None:
    assert merge(old, merge_patch(old, new)) == new


@given(OBJECTS)
def test_the_stamp_is_of_the_content_and_stable(spec: Any) -> None:
    manifest = {"metadata": {"name": "m", "annotations": {"kept": "yes"}}, "spec": spec}
    once = stamped(manifest)
    assert stamped(once) == once
    assert once["metadata"]["annotations"]["kept"] == "yes"
    other = stamped({**manifest, "spec": {**spec, "more": 1}})
    assert other["metadata"]["annotations"][ANNOTATION_APPLIED] != once["metadata"]["annotations"][ANNOTATION_APPLIED]
