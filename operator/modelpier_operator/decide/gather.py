"""First step of a pass: what was observed, sorted into revisions, pod sets and other owned objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from modelpier_operator import names
from modelpier_operator.decide import podset, revision
from modelpier_operator.decide.facts import Manifest, Observed, Ref
from modelpier_operator.decide.podset import Pod, PodSet
from modelpier_operator.decide.revision import Revision


@dataclass(frozen=True)
class Facts:
    md: Manifest
    revisions: tuple[Revision, ...]
    pod_sets: tuple[PodSet, ...]
    stray: tuple[Pod, ...]
    """Pods whose set is gone already: they drain, and still hold their GPUs."""
    owned: Mapping[tuple[str, str], Manifest]
    """By (kind, name): children of this very ModelDeployment. Others of the same label are none of our business."""

    @property
    def name(self) -> str:
        return str(self.md["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.md["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        return str(self.md["metadata"]["uid"])

    @property
    def generation(self) -> int:
        return int(self.md["metadata"].get("generation") or 0)

    def serving(self, revision_name: str) -> PodSet | None:
        """The pod set of a revision. Of two, after a crash of long ago or a change of strategy, the one that stays and
        serves; the youngest of equals.
        """
        sets = [s for s in self.pod_sets if s.revision == revision_name]
        return max(sets, key=lambda s: (s.lasting, bool(s.ready), s.name), default=None)

    def host(self, revision_name: str) -> PodSet | None:
        """The pod set of another revision whose pods hold this one as well."""
        return next((s for s in self.pod_sets if s.candidate == revision_name), None)

    def pods_beside(self, pod_set: str) -> tuple[Pod, ...]:
        """All pods of this ModelDeployment that are not of that set."""
        return tuple(p for s in self.pod_sets if s.name != pod_set for p in s.pods) + self.stray


def gather(observed: Observed) -> Facts:
    uid = observed.md["metadata"]["uid"]
    owned = {(c["kind"], c["metadata"]["name"]): c for c in observed.children if owned_by(c, uid)}
    pods = _pods(observed)
    pod_sets = _pod_sets(owned, pods)
    known = {s.name for s in pod_sets}
    found = (revision.read(c) for (kind, _), c in owned.items() if kind == "ControllerRevision")
    return Facts(
        md=observed.md,
        revisions=tuple(sorted((r for r in found if r), key=lambda r: r.number)),
        pod_sets=pod_sets,
        stray=tuple(p for name, group in pods.items() if name not in known for p in group),
        owned=owned,
    )


def owned_by(child: Manifest, uid: str) -> bool:
    references = child["metadata"].get("ownerReferences") or ()
    return any(r.get("uid") == uid and r.get("controller") for r in references)


def ref(child: Manifest) -> Ref:
    return Ref(child["kind"], child["metadata"]["name"], child["metadata"].get("uid") or "")


def _pods(observed: Observed) -> dict[str, list[Pod]]:
    by_set: dict[str, list[Pod]] = defaultdict(list)
    for manifest in observed.pods:
        uid = manifest["metadata"]["uid"]
        pod = podset.pod(
            manifest,
            observed.reports.get(uid),
            tuple(observed.warnings.get(uid, ())),
            observed.unreachable.get(uid, ""),
        )
        by_set[pod.pod_set].append(pod)
    return by_set


def _pod_sets(owned: Mapping[tuple[str, str], Manifest], pods: Mapping[str, list[Pod]]) -> tuple[PodSet, ...]:
    deployments: dict[str, Manifest] = {}
    plans: dict[str, Manifest] = {}
    for (kind, _), child in owned.items():
        if name := (child["metadata"].get("labels") or {}).get(names.LABEL_POD_SET):
            if kind == "Deployment":
                deployments[name] = child
            elif kind == "ConfigMap":
                plans[name] = child
    return tuple(
        _pod_set(name, deployments.get(name), plans.get(name), pods.get(name, []))
        for name in sorted(deployments.keys() | plans.keys())
    )


def _pod_set(name: str, deployment: Manifest | None, plan: Manifest | None, pods: list[Pod]) -> PodSet:
    labels = (deployment or {}).get("metadata", {}).get("labels") or {}
    # The plan is written before the Deployment: when a Swap ends, it is the first to know.
    told = _annotations(plan)
    return PodSet(
        name=name,
        hash=labels.get(names.LABEL_POD_SET_HASH, ""),
        revision=told.get(names.ANNOTATION_REVISION) or _annotations(deployment).get(names.ANNOTATION_REVISION, ""),
        candidate=told.get(names.ANNOTATION_CANDIDATE, ""),
        deployment=deployment,
        plan=plan,
        pods=tuple(sorted(pods, key=lambda p: (p.created, p.name))),
    )


def _annotations(child: Manifest | None) -> Mapping[str, str]:
    found: Mapping[str, str] = (child or {}).get("metadata", {}).get("annotations") or {}
    return found
