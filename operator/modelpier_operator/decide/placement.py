"""The planner: whether the cluster has the GPUs for new pods beside the old ones (Surge), whether those that serve can
take the new revision as well (Swap), or old pods must go first (Replace).

Node by node, because two half-free nodes do not hold one pod of two GPUs. It knows what the scheduler would say of
GPUs, selectors and taints only; a wrong guess for Surge costs `capacityWaitSeconds`, then Auto turns to one of the
others. Whether two revisions fit into a pod's memory the servers find out: where they do not, Auto turns to Replace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelpier_operator.api.v1alpha1 import ModelDeploymentSpec, Strategy
from modelpier_operator.decide.facts import Capacity, NodeFact
from modelpier_operator.decide.memory import Placement


@dataclass(frozen=True)
class Need:
    """What one pod asks of a node."""

    resource: str
    count: int
    selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]


def need(spec: ModelDeploymentSpec, template: Mapping[str, Any]) -> Need:
    pod = template["spec"]
    return Need(
        resource=spec.resources.gpu_resource,
        count=spec.resources.gpu,
        selector=pod.get("nodeSelector") or {},
        tolerations=tuple(pod.get("tolerations") or ()),
    )


def choose(asked: Strategy, wanted: Need, replicas: int, capacity: Capacity | None, hindrance: str | None) -> Placement:
    """How a rollout of `replicas` new pods begins. `hindrance`: what keeps it from being a Swap."""
    if asked is Strategy.SWAP and hindrance:
        return Placement(asked, Strategy.REPLACE, f"No Swap, because {hindrance}.")
    if asked is not Strategy.AUTO:
        return Placement(asked, asked, "The spec asks for it.")
    if wanted.count == 0:
        return Placement(asked, Strategy.SURGE, "No GPU is needed.")
    if capacity is None:
        return Placement(asked, Strategy.SURGE, "Free GPUs are unknown: the operator may not see nodes.")
    room = fits(wanted, capacity)
    what = f"{replicas} new pods of {wanted.count} GPUs each ({wanted.resource})"
    if room >= replicas:
        return Placement(asked, Strategy.SURGE, f"There is room for {what}.")
    return without_room(asked, f"There is room for {room} of {what} beside the old ones", hindrance)


def without_room(asked: Strategy, short: str, hindrance: str | None) -> Placement:
    """When new pods beside the old ones are out of the question."""
    if hindrance is None:
        return Placement(asked, Strategy.SWAP, f"{short}; the pods that serve can take the new revision as well.")
    return Placement(asked, Strategy.REPLACE, f"{short}, and {hindrance}.")


def hindrance(old: Mapping[str, Any], new: Mapping[str, Any], *, running: bool) -> str | None:
    """What keeps pods of the template `old` from taking a revision with the template `new`; None: nothing.

    `running`: some of them are.
    """
    if old != new:
        return f"the new revision needs other pods ({', '.join(_differing(old, new))})"
    return None if running else "none of the old pods runs"


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Fields of the pod and of the server's container, as Kubernetes calls them."""
    one, other = _fields(old), _fields(new)
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def _fields(template: Mapping[str, Any]) -> dict[str, Any]:
    pod = template["spec"]
    server, *others = pod["containers"]
    both = {key: (pod.get(key), server.get(key)) for key in pod.keys() | server.keys()}
    return {**both, "containers": others, "metadata": template["metadata"]}


def fits(wanted: Need, capacity: Capacity, without: Iterable[tuple[str, str]] = ()) -> int:
    """How many such pods the nodes have room for, taking pods of these (namespace, name) as gone."""
    if wanted.count == 0:
        return 0
    gone = set(without)
    used: Counter[str] = Counter()
    for pod in capacity.pods:
        if pod.node and (pod.namespace, pod.name) not in gone:
            used[pod.node] += pod.requests.get(wanted.resource, 0)
    return sum(_room(node, wanted, used[node.name]) for node in capacity.nodes if admits(node, wanted))


def admits(node: NodeFact, wanted: Need) -> bool:
    """Whether the scheduler may put such a pod there at all."""
    if node.unschedulable or not node.ready:
        return False
    if any(node.labels.get(key) != value for key, value in wanted.selector.items()):
        return False
    hard = (t for t in node.taints if t.get("effect") in {"NoSchedule", "NoExecute"})
    return all(any(_tolerates(tolerance, taint) for tolerance in wanted.tolerations) for taint in hard)


def _room(node: NodeFact, wanted: Need, used: int) -> int:
    return max(0, node.allocatable.get(wanted.resource, 0) - used) // wanted.count


def _tolerates(tolerance: Mapping[str, Any], taint: Mapping[str, str]) -> bool:
    """https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/"""
    if (effect := tolerance.get("effect")) and effect != taint.get("effect"):
        return False
    if (key := tolerance.get("key")) and key != taint.get("key"):
        return False
    if tolerance.get("operator") == "Exists":
        return True
    return bool(key) and (tolerance.get("value") or "") == (taint.get("value") or "")
