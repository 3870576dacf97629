"""Pod sets, where revisions are served: a Deployment, the ConfigMap with its plan, and its pods, as seen by a pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelpier_operator import names
from modelpier_operator.decide import clock
from modelpier_operator.decide.facts import Complaint, Manifest
from modelpier_server.contract import Report

_OVERDUE_SECONDS = 10.0


@dataclass(frozen=True)
class Pod:
    uid: str
    name: str
    pod_set: str
    node: str
    """Empty: not scheduled yet."""
    ip: str
    ready: bool
    """The kubelet says so, and it is not on its way out: what a Service sends requests to."""
    terminating: bool
    ended: bool
    """Evicted, failed or completed: it never runs again and holds nothing."""
    manifest: Manifest
    report: Report | None = None
    complaints: tuple[Complaint, ...] = ()
    unreachable: str = ""

    @property
    def status(self) -> Mapping[str, Any]:
        return self.manifest.get("status") or {}

    @property
    def created(self) -> str:
        return str(self.manifest["metadata"].get("creationTimestamp") or "")

    @property
    def active(self) -> bool:
        """It counts towards the replicas of its Deployment."""
        return not (self.terminating or self.ended)

    @property
    def running(self) -> bool:
        """Its server may answer."""
        return self.active and bool(self.ip) and self.status.get("phase") == "Running"

    def condition(self, kind: str) -> Mapping[str, Any]:
        return next((c for c in self.status.get("conditions") or () if c.get("type") == kind), {})

    def container(self) -> Mapping[str, Any]:
        """The status of the server's container."""
        return next((c for c in self.status.get("containerStatuses") or () if c.get("name") == names.CONTAINER), {})

    def holds_resources(self, now: datetime) -> bool:
        """Whether its GPUs are taken. A pod far beyond its deletion time sits on a lost node: nothing waits for it."""
        if self.ended:
            return False
        return not self.terminating or clock.elapsed(self._deletion(), now) < _OVERDUE_SECONDS

    def overdue_in(self, now: datetime) -> float | None:
        """Seconds until time alone ends `holds_resources`."""
        moment = clock.parse(self._deletion()) if self.terminating and not self.ended else None
        left = (moment - now).total_seconds() + _OVERDUE_SECONDS if moment else 0.0
        return left if left > 0 else None

    def _deletion(self) -> str | None:
        value: str | None = self.manifest["metadata"].get("deletionTimestamp")
        return value


@dataclass(frozen=True)
class PodSet:
    name: str
    hash: str = ""
    revision: str = ""
    """Name of the ControllerRevision that it serves."""
    candidate: str = ""
    """Name of the ControllerRevision that its pods hold beside that one."""
    deployment: Manifest | None = None
    plan: Manifest | None = None
    """The ConfigMap."""
    pods: tuple[Pod, ...] = ()
    """Oldest first."""

    @property
    def lasting(self) -> bool:
        """It has a Deployment, which is not on its way out."""
        return self.deployment is not None and not self.deployment["metadata"].get("deletionTimestamp")

    @property
    def replicas(self) -> int:
        """What its Deployment asks for now."""
        return int((self.deployment or {}).get("spec", {}).get("replicas") or 0)

    @property
    def active(self) -> tuple[Pod, ...]:
        return tuple(p for p in self.pods if p.active)

    @property
    def ready(self) -> tuple[Pod, ...]:
        return tuple(p for p in self.pods if p.ready)


def pod(
    manifest: Manifest, report: Report | None = None, complaints: tuple[Complaint, ...] = (), unreachable: str = ""
) -> Pod:
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    terminating = bool(metadata.get("deletionTimestamp"))
    ended = status.get("phase") in {"Failed", "Succeeded"}
    is_ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
    return Pod(
        uid=metadata["uid"],
        name=metadata["name"],
        pod_set=(metadata.get("labels") or {}).get(names.LABEL_POD_SET, ""),
        node=(manifest.get("spec") or {}).get("nodeName") or "",
        ip=status.get("podIP") or "",
        ready=is_ready and not terminating and not ended,
        terminating=terminating,
        ended=ended,
        manifest=manifest,
        report=report,
        complaints=complaints,
        unreachable=unreachable,
    )
