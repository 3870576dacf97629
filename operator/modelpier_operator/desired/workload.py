"""A pod set as a Deployment: the frozen template, told which set it is of and where its plan lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelpier_operator import names
from modelpier_operator.decide.facts import Manifest
from modelpier_operator.decide.goals import Goal
from modelpier_operator.desired.metadata import metadata
from modelpier_operator.desired.volumes import PLAN
from modelpier_server import contract


def deployment(md: Manifest, goal: Goal, progress_deadline: int) -> dict[str, Any]:
    """Its own rolling update never runs, because the template of a pod set never changes."""
    set_labels = {names.LABEL_POD_SET: goal.name, names.LABEL_POD_SET_HASH: goal.hash}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(md, goal.name, set_labels, {names.ANNOTATION_REVISION: goal.revision.name}),
        "spec": {
            "replicas": goal.replicas,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": progress_deadline,
            "selector": {"matchLabels": {names.LABEL_POD_SET: goal.name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": _template(goal.revision.template, set_labels, names.plan_name(goal.name)),
        },
    }


def _template(frozen: Mapping[str, Any], set_labels: Mapping[str, str], plan: str) -> dict[str, Any]:
    spec, described = frozen["spec"], frozen["metadata"]
    volumes = [{**v, "configMap": {"name": plan}} if v["name"] == PLAN else v for v in spec["volumes"]]
    pod_set = set_labels[names.LABEL_POD_SET]
    containers = [_told(c, pod_set) if c["name"] == names.CONTAINER else c for c in spec["containers"]]
    return {
        "metadata": {**described, "labels": {**described["labels"], **set_labels}},
        "spec": {**spec, "containers": containers, "volumes": volumes},
    }


def _told(container: Mapping[str, Any], pod_set: str) -> dict[str, Any]:
    """Which set it is of: the server refuses the plan of another one, rightly signed as it may be."""
    env = [entry for entry in container.get("env") or () if entry["name"] != contract.ENV_POD_SET]
    return {**container, "env": [*env, {"name": contract.ENV_POD_SET, "value": pod_set}]}
