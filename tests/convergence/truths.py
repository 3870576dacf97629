"""What must hold once users, vandals and faults have stopped, however it went before. The machine asks at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convergence.grounds import NAMESPACE, Users
from modelpier_operator import names
from modelpier_operator.cluster.compare import contains
from modelpier_operator.cluster.kinds import CHILDREN, MODEL_DEPLOYMENT, POD, controller, key_of
from modelpier_operator.decide import podset
from modelpier_operator.decide.facts import Manifest
from support.builders import conditions
from support.faults import Journal
from support.operator_rig import Rig

Object = dict[str, Any]
BROKEN = "s3://models/broken/model.onnx"
REFUSED: Mapping[str, Object] = {
    "by the server": {"podTemplate": {"spec": {"restartPolicy": "Never"}}},
    "by the operator": {"nodeSelector": {"no label": "no"}},
}
"""`resources`: with the first the API server takes no Deployment, with the second nothing is made."""
WHOLE = {
    "Service": ("selector",),
    "NetworkPolicy": ("podSelector", "ingress"),
    "PodDisruptionBudget": ("selector",),
}
CATCH_UP = 10.0
"""Seconds that events may take on their way from the API server."""


@dataclass(frozen=True)
class There:
    """All that the API server has, by plural."""

    objects: Mapping[str, list[Object]]

    @classmethod
    def at(cls, users: Users) -> There:
        kinds = (*CHILDREN.values(), MODEL_DEPLOYMENT, POD)
        return cls({kind.plural: users.list(kind.plural, NAMESPACE) for kind in kinds})

    def deployment(self, name: str) -> Object | None:
        found = self.objects[MODEL_DEPLOYMENT.plural]
        return next((live for live in found if live["metadata"]["name"] == name), None)

    def of(self, name: str) -> list[Object]:
        """Children by their label, the deployment's own or not."""
        children = (child for kind in CHILDREN.values() for child in self.objects[kind.plural])
        return [child for child in children if _label(child, names.LABEL_DEPLOYMENT) == name]

    def serving(self) -> set[str]:
        """Pod sets."""
        return {_label(pod, names.LABEL_POD_SET) for pod in self.objects[POD.plural] if podset.pod(pod).ready}


async def in_step(rig: Rig, users: Users) -> There:
    """What there is, once the operator knows it in its last version, and nothing else. Raises AssertionError."""
    deadline = asyncio.get_running_loop().time() + CATCH_UP
    while lacks := _behind(rig, there := There.at(users)):
        assert asyncio.get_running_loop().time() < deadline, f"the caches are not what the API server has: {lacks}"
        await asyncio.sleep(0.02)
    return there


def _behind(rig: Rig, there: There) -> list[str]:
    stores: dict[str, Any] = {kind.plural: rig.caches.children[kind.kind] for kind in CHILDREN.values()}
    stores[MODEL_DEPLOYMENT.plural] = rig.caches.deployments
    behind = []
    for plural, store in stores.items():
        live = [o for o in there.objects[plural] if plural == MODEL_DEPLOYMENT.plural or _is_ours(o)]
        known = [store.get(key_of(o)) for o in live]
        if len(store) != len(live) or any(_version(a) != _version(b) for a, b in zip(live, known, strict=True)):
            behind.append(plural)
    return behind


def _version(manifest: Object | None) -> str:
    return str(manifest["metadata"]["resourceVersion"]) if manifest else ""


def _label(manifest: Manifest, label: str) -> str:
    return str((manifest["metadata"].get("labels") or {}).get(label, ""))


def _is_ours(manifest: Object) -> bool:
    return _label(manifest, names.LABEL_MANAGED_BY) == names.MANAGED_BY


def converged(rig: Rig, there: There, name: str) -> dict[str, str] | None:
    """The conditions of a ModelDeployment that is as it should be; None for one that is not there."""
    live, mine = there.deployment(name), there.of(name)
    if live is None:
        assert mine == [], "a deletion leaves nothing behind"
        return None
    uid = live["metadata"]["uid"]
    assert {controller(child).get("uid") for child in mine} <= {uid}
    _is_as_judged(rig, live, mine, there.serving())
    told = conditions(live["status"])
    _serves(live, told)
    return told


def _is_as_judged(rig: Rig, live: Object, mine: list[Object], serving: set[str]) -> None:
    outcome = rig.judged(live)
    assert outcome.delete == ()
    if not outcome.children:  # a spec that cannot be followed, and nobody knows what served before: hands off
        return
    wanted = {(c["kind"], c["metadata"]["name"]): c for c in outcome.children if not _is_refused(c)}
    # Who takes our label off an object takes it out of our sight, until its owner goes.
    ours = [c for c in mine if _is_ours(c)]
    known = {c["metadata"]["name"] for c in ours if c["kind"] == "ControllerRevision"}
    there = {(c["kind"], c["metadata"]["name"]): c for c in ours if not _is_orphan(c, known, serving)}
    assert there.keys() == wanted.keys(), f"too many: {there.keys() - wanted.keys()}, missing: {wanted.keys() - there}"
    for key, child in wanted.items():
        assert contains(there[key], child)
        for field in WHOLE.get(child["kind"], ()):
            assert there[key]["spec"][field] == child["spec"][field], "one key more selects something else"


def _is_orphan(child: Object, known: set[str], serving: set[str]) -> bool:
    """Its pods serve, and somebody took the revision away that says what: it stays while nothing better serves."""
    revision = (child["metadata"].get("annotations") or {}).get(names.ANNOTATION_REVISION)
    return revision is not None and revision not in known and _label(child, names.LABEL_POD_SET) in serving


def _is_refused(child: Manifest) -> bool:
    return child["kind"] == "Deployment" and "restartPolicy" in child["spec"]["template"]["spec"]


def _serves(live: Object, told: dict[str, str]) -> None:
    spec, ready = live["spec"], told["Ready"]
    assert live["status"]["observedGeneration"] == live["metadata"]["generation"]
    resources = spec.get("resources", {})
    if "nodeSelector" in resources:
        assert ready == "False/SpecInvalid", told
    elif "podTemplate" in resources:
        assert not (spec["replicas"] and ready.startswith("True")), told
    elif not spec["replicas"]:
        assert ready == "True/ScaledToZero", told
    elif spec["model"]["uri"] == BROKEN or told["Stalled"].startswith("True"):
        assert not ready.startswith("True"), told
    else:
        assert ready == "True/Serving", told


def told_once(journal: Journal) -> None:
    """Nothing was done again that was known to be done."""
    assert not journal.deleted_again
    assert not journal.made_again
    again = {what: count for what, count in journal.made_for_nobody.items() if count > 1}
    assert not again, f"made for a ModelDeployment that was gone: {again}"
