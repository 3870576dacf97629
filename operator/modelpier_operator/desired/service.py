"""The Service that callers use: one name for as long as the ModelDeployment lives, whatever serves behind it."""

from __future__ import annotations

from typing import Any

from modelpier_operator import names
from modelpier_operator.decide.address import selector, service_name
from modelpier_operator.decide.facts import Manifest
from modelpier_operator.desired.metadata import metadata
from modelpier_server import contract

PORT = 80
TARGET, GRPC_TARGET = "http", "grpc"
"""Names of the container's ports: a pod set with other numbers would go on working."""
H2C = "kubernetes.io/h2c"
"""Kubernetes' own name for HTTP/2 without TLS: gateways and meshes balance its calls, not its connections."""


def service(md: Manifest, pod_set: str | None, since: str) -> dict[str, Any]:
    """`since`: when it was given this selector, written along with it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(md, service_name(md), annotations={names.ANNOTATION_SELECTED: since}),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(md, pod_set),
            "ports": [
                {"name": "http", "port": PORT, "protocol": "TCP", "targetPort": TARGET},
                {
                    "name": "grpc",
                    "port": contract.GRPC_PORT,
                    "protocol": "TCP",
                    "targetPort": GRPC_TARGET,
                    "appProtocol": H2C,
                },
            ],
        },
    }
