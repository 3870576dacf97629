"""The NetworkPolicy that closes the admin port to everyone but the operator; inference stays open, egress untouched."""

from __future__ import annotations

from typing import Any

from modelpier_operator import names
from modelpier_operator.decide.address import all_pods
from modelpier_operator.decide.facts import Manifest
from modelpier_operator.desired.metadata import metadata
from modelpier_operator.settings import Settings
from modelpier_server import contract

OPERATOR = "modelpier-operator"
"""app.kubernetes.io/name of the operator's pods in the chart."""


def name(md: Manifest) -> str:
    return names.capped(md["metadata"]["name"], "admin", 253)


def network_policy(md: Manifest, settings: Settings) -> dict[str, Any]:
    operator = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.operator_namespace}},
        "podSelector": {"matchLabels": {names.LABEL_NAME: OPERATOR}},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(md, name(md)),
        "spec": {
            "podSelector": {"matchLabels": all_pods(md)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": [_ports(1, contract.ADMIN_PORT - 1), _ports(contract.ADMIN_PORT + 1, 65535)]},
                {"from": [operator], "ports": [{"protocol": "TCP", "port": contract.ADMIN_PORT}]},
            ],
        },
    }


def _ports(first: int, last: int) -> dict[str, Any]:
    """Whatever else listens in a pod (a side-car's metrics, say) is none of this policy's business."""
    return {"protocol": "TCP", "port": first, "endPort": last}
