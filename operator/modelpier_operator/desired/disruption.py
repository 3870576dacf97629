"""The PodDisruptionBudget: a drained node takes one pod of a model at a time; with a single replica it would block."""

from __future__ import annotations

from typing import Any

from modelpier_operator import names
from modelpier_operator.decide.address import all_pods
from modelpier_operator.decide.facts import Manifest
from modelpier_operator.desired.metadata import metadata

FROM_REPLICAS = 2


def name(md: Manifest) -> str:
    return names.label_value(md["metadata"]["name"])


def disruption_budget(md: Manifest) -> dict[str, Any]:
    """AlwaysAllow: a pod that does not serve anyway must not keep a node from being drained."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(md, name(md)),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": all_pods(md)},
        },
    }
