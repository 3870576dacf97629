"""`resources.podTemplate`: pods that users describe themselves, where the administrator lets them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from modelpier_operator import names
from modelpier_operator.api.merge_keys import MERGED_BY
from support.builders import conditions, md, settings
from support.simulation import Operator

OWN_IMAGE = {"spec": {"containers": [{"name": names.CONTAINER, "image": "my/own:1"}]}}
WITH_ENV = {"spec": {"containers": [{"name": names.CONTAINER, "env": [{"name": "A", "value": "1"}]}]}}


def serving(template: dict[str, Any] | None, upgrade: str = "Auto") -> Operator:
    sections: dict[str, Any] = {"server": {"runtimeUpgrade": upgrade}}
    if template is not None:
        sections["resources"] = {"podTemplate": template}
    subject = Operator(md(**sections), settings=settings(allow_pod_overrides=True))
    subject.settle()
    assert conditions(subject.md["status"])["Ready"] == "True/Serving"
    return subject


def revisions(subject: Operator) -> list[str]:
    return [r["metadata"]["name"] for r in subject.world.store.list("ControllerRevision")]


def server(subject: Operator) -> dict[str, Any]:
    [deployment] = subject.world.store.list("Deployment")
    containers = deployment["spec"]["template"]["spec"]["containers"]
    return dict(next(c for c in containers if c["name"] == names.CONTAINER))


def test_an_image_of_the_users_own_is_not_upgraded_for_ever() -> None:
    subject = serving(OWN_IMAGE)
    assert len(revisions(subject)) == 1
    assert not subject.run(), "nothing is left to be written"
    subject.settings = replace(subject.settings, server_image="registry.example/server:2")
    subject.settle()
    assert (len(revisions(subject)), server(subject)["image"]) == (1, "my/own:1")


def test_other_overrides_go_along_with_an_upgrade() -> None:
    subject = serving(WITH_ENV)
    subject.settings = replace(subject.settings, server_image="registry.example/server:2")
    subject.settle()
    assert server(subject)["image"] == "registry.example/server:2"
    assert {"name": "A", "value": "1"} in server(subject)["env"]


def test_overrides_that_are_no_longer_allowed_are_not_dropped_in_silence() -> None:
    """What serves goes on as it is; new pods without them would be others than the user described."""
    subject = serving(WITH_ENV)
    subject.settings = replace(subject.settings, allow_pod_overrides=False)
    subject.settle()
    assert conditions(subject.md["status"])["Ready"] == "True/Serving"
    subject.settings = replace(subject.settings, server_image="registry.example/server:2")
    subject.settle()
    assert {"name": "A", "value": "1"} in server(subject)["env"]
    assert server(subject)["image"] == "registry.example/server:1"
    assert "PodOverridesForbidden" in str(subject.md["status"]["conditions"])


@pytest.mark.parametrize(
    ("template", "field"),
    [
        ({"spec": {"volumes": None}}, "spec.volumes"),
        ({"spec": {"containers": None}}, "spec.containers"),
        ({"spec": None}, "podTemplate.spec"),
        ({"metadata": None}, "podTemplate.metadata"),
        ({"metadata": {"labels": ["x"]}}, "metadata.labels"),
        ({"spec": {"imagePullSecrets": ["x"]}}, "spec.imagePullSecrets"),
        ({"spec": {"topologySpreadConstraints": [None]}}, "spec.topologySpreadConstraints"),
        ({"spec": {"containers": [{"name": "server", "env": [{"value": "x"}]}]}}, "containers.0.env"),
        ({"spec": {"containers": [{"name": "server", "env": "x"}]}}, "containers.0.env"),
        ({"spec": {"containers": [{"name": "server", "ports": ["x"]}]}}, "containers.0.ports"),
        ({"spec": {"containers": [{"name": "server", "volumeMounts": ["x"]}]}}, "containers.0.volumeMounts"),
        ({"spec": {"containers": [{"name": "server", "image": None}]}}, "containers.0.image"),
        ({"spec": {"containers": [{"name": "server", "resources": "x"}]}}, "containers.0.resources"),
    ],
)
def test_what_cannot_be_merged_is_told_and_what_serves_goes_on(template: dict[str, Any], field: str) -> None:
    subject = serving(None)
    subject.edit(replicas=3, resources={"podTemplate": template})
    subject.settle()
    told = subject.md["status"]
    assert conditions(told)["Ready"].startswith("True") is False or "SpecInvalid" in str(told["conditions"])
    assert field in str(told["conditions"])
    assert told["observedGeneration"] == subject.md["metadata"]["generation"]
    assert len(subject.world.pods()) == 3, "the number of replicas is no part of what cannot be followed"


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "x", "server", "1Gi"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [*MERGED_BY, "name", "image", "value", "resources", "limits", "cpu", "emptyDir", "sizeLimit"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
_objects = st.dictionaries(st.sampled_from([*MERGED_BY, "nodeSelector", "securityContext"]), _json, max_size=3)
_containers = st.dictionaries(
    st.sampled_from(["env", "ports", "volumeMounts", "image", "resources", "args"]), _json, max_size=3
).map(lambda fields: {**fields, "name": "server"})
_templates = st.fixed_dictionaries(
    {},
    optional={
        "metadata": _json | st.dictionaries(st.sampled_from(["labels", "annotations"]), _json, max_size=2),
        "spec": _json | _objects | st.builds(lambda o, c: {**o, "containers": [c]}, _objects, _containers),
    },
)


@given(_templates)
@examples(max_examples=150, deadline=None)
def test_whatever_it_is_a_pass_has_an_outcome(template: dict[str, Any]) -> None:
    subject = Operator(md(resources={"podTemplate": template}), settings=settings(allow_pod_overrides=True))
    for _ in range(3):
        subject.run()
        subject.world.tick()
    assert subject.md["status"]["observedGeneration"] == 1
