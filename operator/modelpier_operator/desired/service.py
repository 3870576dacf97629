"""The Service that callers use: one name for as long as the ModelDeployment lives, whatever serves behind it."""

from __future__ import annotations

from typing import Any

from modelpier_operator import names
from modelpier_operator.decide.facts import Manifest
from modelpier_operator.desired.metadata import all_pods, metadata

PORT = 80
TARGET = "http"
"""Name of the container's port: a pod set with another number would go on working."""


def name(md: Manifest) -> str:
    return names.label_value(md["metadata"]["name"])


def url(md: Manifest, cluster_domain: str) -> str:
    return f"http://{name(md)}.{md['metadata']['namespace']}.svc.{cluster_domain}"


def selector(md: Manifest, pod_set: str | None) -> dict[str, str]:
    """The pods that take production weight: one set, or all while one replaces another."""
    return all_pods(md) | ({names.LABEL_POD_SET: pod_set} if pod_set else {})


def service(md: Manifest, pod_set: str | None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(md, name(md)),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(md, pod_set),
            "ports": [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": TARGET}],
        },
    }
