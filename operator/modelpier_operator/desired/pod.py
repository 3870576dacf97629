"""The pod template of a revision: rendered once, frozen in the ControllerRevision, never rendered again.

It holds everything but what names its pod set (`desired.workload` adds that), so that its hash says whether two
revisions could live in the same pods. It follows the `restricted` Pod Security Standard:
https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from modelpier_operator import names
from modelpier_operator.api.v1alpha1 import ModelDeploymentSpec
from modelpier_operator.decide import intent
from modelpier_operator.decide.address import all_pods
from modelpier_operator.decide.facts import Manifest
from modelpier_operator.desired import merge, serviceaccount
from modelpier_operator.desired.container import container as server_container
from modelpier_operator.desired.container import drain_limit
from modelpier_operator.desired.metadata import labels
from modelpier_operator.desired.volumes import volumes
from modelpier_operator.settings import PlanKeys, Settings
from modelpier_server import contract

USER = 65532
"""`nonroot` of the images."""
_EXIT_SECONDS = 5


def template(md: Manifest, spec: ModelDeploymentSpec, settings: Settings, keys: PlanKeys) -> dict[str, Any]:
    """Canonical: equal wishes give equal templates, and the API server changes nothing in them."""
    rendered: dict[str, Any] = {
        "metadata": {"labels": labels(md)},
        "spec": _spec(md, spec, settings, keys),
    }
    if not (settings.allow_pod_overrides and spec.resources.pod_template):
        return merge.pruned(rendered)
    rendered = merge.merged(rendered, spec.resources.pod_template)
    rendered["metadata"] = merge.merged(rendered["metadata"], {"labels": labels(md)})
    return merge.canonical(trusting(rendered, keys))


def image(spec: ModelDeploymentSpec, settings: Settings) -> str:
    """Of the server, in the pods that would be made now."""
    if settings.allow_pod_overrides and spec.resources.pod_template:
        containers = (spec.resources.pod_template.get("spec") or {}).get("containers")
        for container in containers if isinstance(containers, list) else ():
            if isinstance(container, Mapping) and container.get("name") == names.CONTAINER and container.get("image"):
                return str(container["image"])
    return intent.server_image(spec, settings)


def trusting(template: Mapping[str, Any], keys: PlanKeys) -> dict[str, Any]:
    """The same pods, but for the key whose plans they follow."""
    spec = template["spec"]
    containers = [_trusting(c, keys) if c["name"] == names.CONTAINER else c for c in spec["containers"]]
    return {**template, "spec": {**spec, "containers": containers}}


def _trusting(server: Mapping[str, Any], keys: PlanKeys) -> dict[str, Any]:
    trust = {"name": contract.ENV_PLAN_PUBLIC_KEY, "value": keys.public}
    env = server.get("env") or []
    if any(entry["name"] == trust["name"] for entry in env):
        return {**server, "env": [trust if entry["name"] == trust["name"] else entry for entry in env]}
    return {**server, "env": [*env, trust]}


def _longest_end(spec: ModelDeploymentSpec) -> int:
    """Most pods take the first of these times and no more."""
    accepting = contract.DRAIN_ACCEPT_SECONDS + contract.GRPC_SETTLE_SECONDS
    return math.ceil(accepting) + drain_limit(spec) + _EXIT_SECONDS


def _spec(md: Manifest, spec: ModelDeploymentSpec, settings: Settings, keys: PlanKeys) -> dict[str, Any]:
    resources, server = spec.resources, spec.server
    secrets = dict.fromkeys((*settings.image_pull_secrets, *server.image_pull_secrets))
    return {
        "containers": [server_container(md, spec, intent.server_image(spec, settings), settings, keys)],
        "volumes": volumes(spec, settings),
        "serviceAccountName": server.service_account_name or serviceaccount.name(md),
        # An account of the user's own is there for workload identity, which is a matter of its token.
        "automountServiceAccountToken": None if server.service_account_name else False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _longest_end(spec),
        "imagePullSecrets": [{"name": name} for name in secrets],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": dict(resources.node_selector),
        "tolerations": [t.model_dump(mode="json", by_alias=True, exclude_none=True) for t in resources.tolerations],
        "priorityClassName": resources.priority_class_name,
        "runtimeClassName": resources.runtime_class_name,
        "topologySpreadConstraints": [
            _spread(md, key) for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
        ],
    }


def _spread(md: Manifest, key: str) -> dict[str, Any]:
    """Within a pod set: the pods of a set that is about to go must not push new ones aside."""
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": all_pods(md)},
        "matchLabelKeys": [names.LABEL_POD_SET],
    }
