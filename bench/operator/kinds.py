"""The kinds that the contest is about, their paths and what one ModelDeployment of the load looks like. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMESPACE = "bench"
OPERATOR_NAMESPACE = "modelpier-system"
LEASE = "modelpier-operator"
OWNER_LABEL = "modelpier.dev/deployment"
IMAGE = "registry.example.com/modelpier/server:bench"
REPLICAS = 2
"""From two replicas on there is a PodDisruptionBudget."""

MODEL_DEPLOYMENTS = f"/apis/modelpier.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases"

CHILDREN: Mapping[str, str] = {
    "controllerrevisions": f"/apis/apps/v1/namespaces/{NAMESPACE}/controllerrevisions",
    "configmaps": f"/api/v1/namespaces/{NAMESPACE}/configmaps",
    "serviceaccounts": f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts",
    "services": f"/api/v1/namespaces/{NAMESPACE}/services",
    "networkpolicies": f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies",
    "poddisruptionbudgets": f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets",
    "deployments": DEPLOYMENTS,
}
"""Path of each kind of child: one object of each per ModelDeployment."""


def name_of(number: int) -> str:
    return f"model-{number:05d}"


def model_deployment(number: int) -> dict[str, Any]:
    """A ModelDeployment as a team writes it: a model in a bucket with its Secret, a GPU, two replicas, some tuning."""
    return {
        "apiVersion": "modelpier.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name_of(number), "namespace": NAMESPACE, "labels": {"team": f"team-{number % 10}"}},
        "spec": {
            "model": {
                "uri": f"s3://models/classifier-{number}/3/model.onnx",
                "version": "3",
                "credentialsSecret": "model-bucket",
            },
            "server": {
                "instances": 2,
                "batching": {"maxRows": 32},
                "limits": {"maxQueue": 256, "requestTimeoutSeconds": 30},
                "startupTimeoutSeconds": 300,
            },
            "resources": {
                "gpu": 1,
                "cpu": "2",
                "memory": "4Gi",
                "modelStorage": "5Gi",
                "nodeSelector": {"pool": "gpu"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            },
            "replicas": REPLICAS,
        },
    }


def settled(md: Mapping[str, Any]) -> bool:
    """Whether the status speaks of the newest spec."""
    return bool(md.get("status", {}).get("observedGeneration") == md["metadata"]["generation"])
