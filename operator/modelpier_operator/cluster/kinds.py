"""The kinds that the operator reads or writes, and their paths at the API server: data for the rest of `cluster`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelpier_operator import names

Key = tuple[str, str]
"""(namespace, name) of an object; of a ModelDeployment where nothing else is said."""


@dataclass(frozen=True)
class Kind:
    kind: str
    api_version: str
    plural: str

    def collection(self, namespace: str | None) -> str:
        """Path of all objects, or of those of one namespace."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        return f"{root}/namespaces/{namespace}/{self.plural}" if namespace else f"{root}/{self.plural}"

    def item(self, key: Key) -> str:
        return f"{self.collection(key[0])}/{key[1]}"


MODEL_DEPLOYMENT = Kind(names.KIND, names.API_VERSION, names.PLURAL)
CONTROLLER_REVISION = Kind("ControllerRevision", "apps/v1", "controllerrevisions")
CONFIG_MAP = Kind("ConfigMap", "v1", "configmaps")
DEPLOYMENT = Kind("Deployment", "apps/v1", "deployments")
SERVICE = Kind("Service", "v1", "services")
POD_DISRUPTION_BUDGET = Kind("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets")
SERVICE_ACCOUNT = Kind("ServiceAccount", "v1", "serviceaccounts")
NETWORK_POLICY = Kind("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies")
REPLICA_SET = Kind("ReplicaSet", "apps/v1", "replicasets")
POD = Kind("Pod", "v1", "pods")
NODE = Kind("Node", "v1", "nodes")
EVENT = Kind("Event", "v1", "events")
LEASE = Kind("Lease", "coordination.k8s.io/v1", "leases")
SECRET = Kind("Secret", "v1", "secrets")

CHILDREN: Mapping[str, Kind] = {
    kind.kind: kind
    for kind in (
        CONTROLLER_REVISION,
        CONFIG_MAP,
        SERVICE_ACCOUNT,
        NETWORK_POLICY,
        SERVICE,
        POD_DISRUPTION_BUDGET,
        DEPLOYMENT,
    )
}
"""What the operator creates, by `kind`."""


def key_of(manifest: Mapping[str, Any]) -> Key:
    metadata = manifest["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def controller(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The ownerReference of the object's controller; empty when it has none."""
    return next((r for r in manifest["metadata"].get("ownerReferences") or () if r.get("controller")), {})
