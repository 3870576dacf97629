"""Revisions: what is served. Which of them carries production, which one the spec wants, and which may be forgotten.

A revision is kept as an apps/v1 ControllerRevision: `data` holds the normalised intent and the frozen pod template,
and never changes; annotations hold the memory of its rollout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from modelpier_operator import names
from modelpier_operator.api.v1alpha1 import ModelDeploymentSpec
from modelpier_operator.decide import intent, memory
from modelpier_operator.decide.facts import Manifest
from modelpier_operator.decide.memory import Memory
from modelpier_server.contract import ENV_PLAN_PUBLIC_KEY


@dataclass(frozen=True)
class Revision:
    name: str
    number: int
    """Grows; the highest is the newest wanted one, as with Deployments."""
    hash: str
    """Of the intent alone: a runtime upgrade makes another revision of the same hash."""
    snapshot: Mapping[str, Any]
    spec: ModelDeploymentSpec
    """The snapshot, typed; `replicas`, `rollout` and `access` mean nothing in it: they are no part of a revision."""
    template: Mapping[str, Any]
    """The frozen pod template, without what names its pod set."""
    memory: Memory = field(default_factory=Memory)

    @property
    def image(self) -> str:
        return str(self._container["image"])

    @property
    def plan_key(self) -> str | None:
        """The public key that its servers trust: they refuse what another one signed (docs/adr/0006)."""
        env = self._container.get("env") or ()
        return next((entry.get("value") for entry in env if entry["name"] == ENV_PLAN_PUBLIC_KEY), None)

    @property
    def _container(self) -> Mapping[str, Any]:
        containers: list[Mapping[str, Any]] = self.template["spec"]["containers"]
        return next((c for c in containers if c.get("name") == names.CONTAINER), containers[0])

    @property
    def digest(self) -> str | None:
        """The content that may be served: given by the user, or pinned at the first load."""
        return self.spec.model.digest or self.memory.digest

    @property
    def version(self) -> str:
        """The label in URLs. It stays for the life of a revision: the pinned digest comes too late to be part of it."""
        model = self.spec.model
        return model.version or (model.digest.removeprefix("sha256:")[:8] if model.digest else self.hash[:8])

    def remembering(self, **changes: Any) -> Revision:
        return replace(self, memory=replace(self.memory, **changes))


def read(manifest: Manifest) -> Revision | None:
    """None for a ControllerRevision whose data somebody has made unusable: it is made again under its own name."""
    data, metadata = manifest.get("data") or {}, manifest["metadata"]
    try:
        spec = intent.remembered(data["spec"])
        data["template"]["spec"]["containers"][0]["image"]
    except (KeyError, TypeError, IndexError, ValidationError):
        return None
    return Revision(
        name=metadata["name"],
        number=int(manifest.get("revision") or 0),
        hash=(metadata.get("labels") or {}).get(names.LABEL_REVISION_HASH, ""),
        snapshot=data["spec"],
        spec=spec,
        template=data["template"],
        memory=memory.read(metadata.get("annotations") or {}),
    )


def stable(revisions: Iterable[Revision]) -> Revision | None:
    """The one that took the production weight last."""
    promoted = [r for r in revisions if r.memory.promoted]
    return max(promoted, key=lambda r: (r.memory.promoted or "", r.number), default=None)


def newest(revisions: Iterable[Revision]) -> Revision | None:
    return max(revisions, key=lambda r: r.number, default=None)


def wanted_again(revision: Revision, highest: int) -> Revision:
    """An older revision that is wanted once more: it becomes the newest, and its rollout begins anew."""
    if revision.number == highest:
        return revision
    fresh = replace(revision.memory, started=None, failure=None, placement=None)
    return replace(revision, number=highest + 1, memory=fresh)


def forgotten(revisions: Iterable[Revision], kept: Iterable[str], limit: int) -> tuple[Revision, ...]:
    """Those that leave the history: the oldest beyond `limit`, never one of `kept`."""
    keep = set(kept)
    old = sorted((r for r in revisions if r.name not in keep), key=lambda r: r.number)
    return tuple(old[: max(0, len(old) - limit)])
