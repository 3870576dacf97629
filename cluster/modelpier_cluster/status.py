"""What `status` tells: about the cluster, where its parts answer, and where its files are."""

from dataclasses import asdict
from typing import Any

from modelpier_cluster.api import ApiClient, is_ready
from modelpier_cluster.guarded import find_detached
from modelpier_cluster.nest import control_plane_nest
from modelpier_cluster.object_store import Keys
from modelpier_cluster.spec import ClusterSpec, Folder


def status(folder: Folder) -> dict[str, Any]:
    """A JSON object; `running` and `ready` are always there. Raises ClusterError when there is no such cluster."""
    spec = folder.read_spec()
    control_plane_only = spec.slot is None
    running = (
        bool(find_detached(folder.path)) if control_plane_only else control_plane_nest(folder.path).outer() is not None
    )
    report: dict[str, Any] = {
        "name": spec.name,
        "running": running,
        "ready": running and is_ready(folder.kubeconfig()),
        "kubeconfig": str(folder.kubeconfig()),
        "apiServer": ApiClient.of(folder.kubeconfig()).url,
        "auditLog": str(folder.audit_log),
        "logs": str(folder.logs),
        "programs": spec.programs,
    }
    if not control_plane_only:
        report |= _with_nodes(folder, spec, ready=report["ready"])
    return report


def _with_nodes(folder: Folder, spec: ClusterSpec, *, ready: bool) -> dict[str, Any]:
    addresses, client = spec.addresses(), ApiClient.of(folder.kubeconfig())
    return {
        "nodes": {node: ready and client.node_ready(node) for node in spec.node_names()},
        "gpusPerNode": spec.options.gpus,
        "registry": addresses.registry,
        "dns": f"{addresses.control_plane}:53",
        "machineSeenFromPods": str(addresses.host),
        "nodeNetwork": str(addresses.node_network),
        "podNetwork": str(addresses.pods),
        "serviceNetwork": str(addresses.services),
        "objectStore": asdict(Keys.read(folder.object_store_keys)),
    }


def render(report: dict[str, Any]) -> str:
    """The report for people: one line per fact."""
    state = "ready" if report["ready"] else "running, not ready" if report["running"] else "not running"
    lines = [f"cluster {report['name']}: {state}"]
    lines += [
        f"  node {name:<12}{'Ready' if ready else 'not ready'}" for name, ready in report.get("nodes", {}).items()
    ]
    if store := report.get("objectStore"):
        lines.append(f"  object store     {store['url']} (S3, region {store['region']})")
        lines.append(f"                   access key {store['access_key']}, secret key {store['secret_key']}")
    labels = {"apiServer": "API server", "registry": "registry", "dns": "DNS", "kubeconfig": "kubeconfig"}
    labels |= {"auditLog": "audit log", "logs": "logs", "programs": "programs"}
    lines += [f"  {label:<17}{report[key]}" for key, label in labels.items() if key in report]
    return "\n".join(lines)


def environment(report: dict[str, Any]) -> dict[str, str]:
    """Variables with which the project's other commands find this cluster."""
    programs = report["programs"]
    variables = {
        "KUBECONFIG": report["kubeconfig"],
        "MODELPIER_KUBECTL": f"{programs}/kubectl",
        "MODELPIER_HELM": f"{programs}/helm",
        "MODELPIER_AUDIT_LOG": report["auditLog"],
    }
    if store := report.get("objectStore"):
        variables |= {
            "MODELPIER_REGISTRY": report["registry"],
            "MODELPIER_S3_ENDPOINT": store["url"],
            "MODELPIER_S3_ACCESS_KEY": store["access_key"],
            "MODELPIER_S3_SECRET_KEY": store["secret_key"],
            "MODELPIER_S3_REGION": store["region"],
        }
    return variables
