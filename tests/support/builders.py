"""Kubernetes objects for tests, by what matters in them: a case is 3 to 10 lines.

`md(replicas=2, uri=...)`, `pod(deployment, ready=True)`, `report(generation=..., state=...)`. Times are strings or
seconds relative to `T0`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from modelpier_operator import names
from modelpier_operator.cluster import keys
from modelpier_operator.decide.facts import Capacity, GpuPod, NodeFact
from modelpier_operator.settings import PlanKeys, Settings
from modelpier_server import contract

T0 = datetime(2030, 1, 1, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
GPU = "nvidia.com/gpu"
OTHER_KEYS = keys.pair(bytes(range(1, 33)))
KEYS = PlanKeys(private=bytes(range(32)), public="A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=")


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def stamp(seconds: float) -> str:
    return at(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def settings(**changes: Any) -> Settings:
    defaults: dict[str, Any] = {
        "server_image": "registry.example/server:1",
        "server_image_gpu": "registry.example/server-gpu:1",
        "operator_namespace": "modelpier-system",
    }
    return Settings(**(defaults | changes))


def md(
    name: str = "m",
    *,
    uri: str = "s3://models/m/model.onnx",
    replicas: int = 1,
    generation: int = 1,
    gpu: int = 0,
    status: Mapping[str, Any] | None = None,
    **sections: Mapping[str, Any],
) -> dict[str, Any]:
    """A ModelDeployment; sections such as `rollout={"strategy": "Replace"}` are merged in, `model` over the uri."""
    spec: dict[str, Any] = {"replicas": replicas, **sections, "model": {"uri": uri, **sections.get("model", {})}}
    if gpu:
        spec["resources"] = {"gpu": gpu, **sections.get("resources", {})}
    made: dict[str, Any] = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}", "generation": generation},
        "spec": spec,
    }
    if status is not None:
        made["status"] = status
    return made


def pod(
    pod_set: str,
    *,
    name: str = "",
    ready: bool = False,
    node: str = "n1",
    created: float = 0.0,
    deleted: float | None = None,
    phase: str | None = None,
    state: Mapping[str, Any] | None = None,
    last: Mapping[str, Any] | None = None,
    restarts: int = 0,
    unscheduled: str = "",
    since: float | None = None,
    **status: Any,
) -> dict[str, Any]:
    """A pod of a set. `state` and `last` are the container's; `unscheduled` is the scheduler's message."""
    name = name or f"{pod_set}-pod"
    since = created if since is None else since
    if unscheduled:
        node = ""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "team",
        "uid": f"uid-{name}",
        "labels": {names.LABEL_POD_SET: pod_set, names.LABEL_DEPLOYMENT: "m"},
        "creationTimestamp": stamp(created),
    }
    if deleted is not None:
        metadata["deletionTimestamp"] = stamp(deleted)
    conditions: list[dict[str, Any]] = [
        {"type": "Ready", "status": str(ready), "lastTransitionTime": stamp(since)},
    ]
    if node or unscheduled:
        conditions.append({"type": "PodScheduled", "status": str(bool(node)), "lastTransitionTime": stamp(since)})
    if unscheduled:
        conditions[1] |= {"reason": "Unschedulable", "message": unscheduled}
    container: dict[str, Any] = {"name": names.CONTAINER, "ready": ready, "restartCount": restarts}
    container["state"] = state or ({"running": {"startedAt": stamp(since)}} if node else {})
    if last:
        container["lastState"] = last
    running = node and "running" in container["state"]
    made: dict[str, Any] = {"phase": phase or ("Running" if running else "Pending"), "conditions": conditions}
    if node:
        made |= {"containerStatuses": [container], "podIP": "198.18.0.9"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": node} if node else {},
        "status": made | status,
    }


def report(
    revision: str,
    *,
    state: str = "ready",
    generation: int = 1,
    digest: str | None = DIGEST,
    reason: str | None = None,
    message: str = "",
    plan_error: str = "",
    timings: Mapping[str, float] | None = None,
) -> contract.Report:
    model = contract.ModelReport(
        name="m",
        revision=revision,
        version="1",
        state=contract.ModelState(state),
        digest=digest,
        reason=contract.FailureReason(reason) if reason else None,
        message=message,
        timings=timings or {},
    )
    return contract.Report(
        serial=1, ready=state == "ready", generation=generation, plan_error=plan_error, models=(model,)
    )


def node(
    name: str = "n1",
    gpus: int = 1,
    *,
    labels: Mapping[str, str] | None = None,
    taints: tuple[Mapping[str, str], ...] = (),
    ready: bool = True,
    unschedulable: bool = False,
    resource: str = GPU,
) -> NodeFact:
    return NodeFact(name, labels or {}, taints, unschedulable, ready, {resource: gpus})


def capacity(*nodes: NodeFact, used: Mapping[str, int] | None = None) -> Capacity:
    """`used`: GPUs that strangers hold, by node."""
    pods = (GpuPod("other", f"p-{n}", n, {GPU: count}) for n, count in (used or {}).items())
    return Capacity(nodes, tuple(pods))


def of_kind(children: tuple[Any, ...], kind: str) -> list[Any]:
    return [child for child in children if child["kind"] == kind]


def conditions(status: Mapping[str, Any]) -> dict[str, str]:
    """By type: "True/Serving"."""
    return {c["type"]: f"{c['status']}/{c['reason']}" for c in status["conditions"]}
