"""The GPUs of the cluster and who holds them, trimmed while decoding: two Sinks that informers fill, read by `observe`.

Without the rights to see nodes and other people's pods the capacity is unknown (None), never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from modelpier_operator.cluster.kinds import Key, key_of
from modelpier_operator.decide.facts import Capacity, GpuPod, NodeFact

Object = dict[str, Any]
Fact = TypeVar("Fact")


class Facts(Generic[Fact]):
    """A Sink that keeps what `read` makes of an object; None: nothing worth keeping."""

    def __init__(self, read: Callable[[Mapping[str, Any]], Fact | None], changed: Callable[[], None]) -> None:
        self._read, self._changed = read, changed
        self._facts: dict[Key, Fact] = {}
        self.known = False
        """All of them are there; False without rights."""

    def all(self) -> tuple[Fact, ...]:
        return tuple(self._facts.values())

    def put(self, manifest: Object) -> None:
        key, fact = key_of(manifest), self._read(manifest)
        if fact == self._facts.get(key):
            return
        if fact is None:
            del self._facts[key]
        else:
            self._facts[key] = fact
        self._changed()

    def drop(self, manifest: Object) -> None:
        if self._facts.pop(key_of(manifest), None) is not None:
            self._changed()

    def retain(self, namespace: str | None, seen: set[Key], version: int) -> None:  # noqa: ARG002 - a Sink's
        for key in [key for key in self._facts if key not in seen]:
            del self._facts[key]
        self.known = True
        self._changed()

    def advance(self, namespace: str | None, version: int) -> None:
        """Nothing here is written by us: there is no own write to compare with."""

    def denied(self) -> None:
        self._facts.clear()
        self.known = False
        self._changed()


class CapacityCache:
    def __init__(self) -> None:
        self.nodes: Facts[NodeFact] = Facts(node_fact, self._forget)
        self.pods: Facts[GpuPod] = Facts(gpu_pod, self._forget)
        self._made: Capacity | None = None

    def _forget(self) -> None:
        self._made = None

    def get(self) -> Capacity | None:
        if not (self.nodes.known and self.pods.known):
            return None
        if self._made is None:
            self._made = Capacity(self.nodes.all(), self.pods.all())
        return self._made


def node_fact(node: Mapping[str, Any]) -> NodeFact:
    spec, status = node.get("spec") or {}, node.get("status") or {}
    conditions = status.get("conditions") or ()
    return NodeFact(
        name=node["metadata"]["name"],
        labels=node["metadata"].get("labels") or {},
        taints=tuple(spec.get("taints") or ()),
        unschedulable=bool(spec.get("unschedulable")),
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
        allocatable=extended(status.get("allocatable") or {}),
    )


def gpu_pod(pod: Mapping[str, Any]) -> GpuPod | None:
    """None for a pod that asks for no extended resource, or has ended."""
    spec, status = pod["spec"], pod.get("status") or {}
    requests = pod_requests(spec)
    if not requests or status.get("phase") in ("Succeeded", "Failed"):
        return None
    metadata = pod["metadata"]
    return GpuPod(metadata["namespace"], metadata["name"], spec.get("nodeName") or "", requests)


def pod_requests(spec: Mapping[str, Any]) -> dict[str, int]:
    """Extended resources of a pod as the scheduler counts them: the larger of all containers and any init container.

    Sidecars (init containers that go on) count with the containers.
    """
    running: dict[str, int] = {}
    largest: dict[str, int] = {}
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in (*spec["containers"], *sidecars):
        for name, count in _requests(container).items():
            running[name] = running.get(name, 0) + count
    for container in spec.get("initContainers") or ():
        for name, count in _requests(container).items():
            largest[name] = max(largest.get(name, 0), count)
    return {name: max(running.get(name, 0), largest.get(name, 0)) for name in {**running, **largest}}


def _requests(container: Mapping[str, Any]) -> dict[str, int]:
    resources = container.get("resources") or {}
    # Extended resources cannot be overcommitted: a limit alone is a request as well.
    return extended({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def extended(resources: Mapping[str, Any]) -> dict[str, int]:
    """Those with a domain in their name: whole numbers always."""
    return {
        name: int(amount)
        for name, amount in resources.items()
        if "/" in name and not name.startswith("kubernetes.io/") and str(amount).isdigit() and int(amount)
    }
