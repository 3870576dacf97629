"""Under which name a ModelDeployment is reached, and which pods answer: said once, for manifests and for status."""

from __future__ import annotations

from modelpier_operator import names
from modelpier_operator.decide.facts import Manifest


def service_name(md: Manifest) -> str:
    return names.label_value(md["metadata"]["name"])


def url(md: Manifest, cluster_domain: str) -> str:
    return f"http://{service_name(md)}.{md['metadata']['namespace']}.svc.{cluster_domain}"


def all_pods(md: Manifest) -> dict[str, str]:
    """The selector of all pods of a ModelDeployment."""
    return {names.LABEL_DEPLOYMENT: names.label_value(md["metadata"]["name"])}


def selector(md: Manifest, pod_set: str | None) -> dict[str, str]:
    """The pods that take production weight: one set, or all while one replaces another."""
    return all_pods(md) | ({names.LABEL_POD_SET: pod_set} if pod_set else {})
