"""What a pass looks at: everything it may know, gathered once, never changed.

`cluster.observe` makes an Observed from its caches without a request; everything after it is pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelpier_server.contract import Report

Manifest = Mapping[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True)
class Ref:
    """One object: `kind` as in manifests, in the namespace of the ModelDeployment."""

    kind: str
    name: str
    uid: str = ""


@dataclass(frozen=True)
class NodeFact:
    name: str
    labels: Mapping[str, str]
    taints: tuple[Mapping[str, str], ...]
    unschedulable: bool
    ready: bool
    allocatable: Mapping[str, int]
    """Extended resources alone."""


@dataclass(frozen=True)
class GpuPod:
    """A pod anywhere in the cluster that asks for an extended resource and has not ended."""

    namespace: str
    name: str
    node: str
    """Empty: not scheduled yet."""
    requests: Mapping[str, int]


@dataclass(frozen=True)
class Capacity:
    nodes: tuple[NodeFact, ...]
    pods: tuple[GpuPod, ...]


@dataclass(frozen=True)
class Problem:
    """Why a child could not be applied in the pass before this one."""

    ref: Ref
    reason: str
    """NameConflict, QuotaExceeded, Forbidden, Invalid, ..."""
    message: str


@dataclass(frozen=True)
class Complaint:
    """A Warning Event about a pod."""

    reason: str
    message: str


@dataclass(frozen=True)
class Observed:
    md: Manifest
    """The ModelDeployment as the API server has it."""
    children: tuple[Manifest, ...] = ()
    """Every object of a child kind that carries our labels for it: ControllerRevision, ConfigMap, Deployment, Service,
    PodDisruptionBudget, ServiceAccount, NetworkPolicy."""
    replica_sets: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    reports: Mapping[str, Report] = field(default_factory=dict)
    """By pod uid: what its server last said of itself."""
    capacity: Capacity | None = None
    """None: no right to see nodes."""
    problems: tuple[Problem, ...] = ()
    warnings: Mapping[str, tuple[Complaint, ...]] = field(default_factory=dict)
    """By pod uid: the kubelet's newest complaints that stand in Events alone (FailedMount, FailedAttachVolume, ...)."""
    unreachable: Mapping[str, str] = field(default_factory=dict)
    """By pod uid: why its admin port did not answer although the pod runs."""


@dataclass(frozen=True)
class PlanPush:
    """A plan that a running pod has not confirmed yet."""

    pod_uid: str
    pod_ip: str
    plan: bytes
    signature: str


@dataclass(frozen=True)
class Tiding:
    """An Event about the ModelDeployment."""

    name: str
    """Of the Event: the same thing is told under the same name."""
    kind: str
    """Normal or Warning."""
    reason: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """What a pass wants, whole: the same input always gives the same outcome."""

    children: tuple[Manifest, ...]
    """Every owned object that must exist, complete, Deployments last."""
    delete: tuple[Ref, ...]
    """Owned objects that must go."""
    status: Manifest
    """The complete status."""
    tidings: tuple[Tiding, ...] = ()
    """To be told before the status is written."""
    pushes: tuple[PlanPush, ...] = ()
    follow: tuple[tuple[str, str], ...] = ()
    """(pod uid, pod ip) of pods whose report is still expected to change."""
    requeue_after: float | None = None
    """Seconds until time alone may change the outcome."""
    final: bool = False
    """Nothing was there, so that it tells of the world as it is once all is created: no second look is needed."""
