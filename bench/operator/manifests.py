"""Whether both contestants made the same objects: what differs by nature is masked, the rest compared. Pure.

Names and hashes of revisions and pod sets differ (each contestant hashes in its own way), and so do keys and times.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.operator import kinds
from bench.operator.observer import owner

Objects = Mapping[str, Sequence[Mapping[str, Any]]]
"""By kind, as observer.objects returns them."""

_SERVER_SIDE = frozenset({"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"})
_ALLOCATED = frozenset({"clusterIP", "clusterIPs", "status"})
_BOOKKEEPING = "modelpier.dev/applied"
"""How the operator knows what it wanted last; the other contestant compares whole objects instead."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_HASH_LABELS = ("modelpier.dev/revision-hash", "modelpier.dev/pod-set-hash")


def differences(ours: Objects, theirs: Objects, names: Sequence[str]) -> list[str]:
    """'kind path: ours | theirs' for each difference between the objects of the ModelDeployments `names`."""
    found: dict[str, None] = {}
    for name in names:
        left, right = masked(ours, name), masked(theirs, name)
        found.update(dict.fromkeys(_compare(left, right, "")))
    return list(found)


def masked(objects: Objects, name: str) -> dict[str, Any]:
    """The objects of one ModelDeployment, one per kind, without what differs by nature."""
    owned = {kind: next((c for c in objects[kind] if owner(c) == name), {}) for kind in kinds.CHILDREN}
    md = next(md for md in objects["modeldeployments"] if md["metadata"]["name"] == name)
    stand_ins = _stand_ins(owned, md)
    plain = {kind: _without(child) for kind, child in owned.items()} | {"status": md.get("status", {})}
    result: dict[str, Any] = _masked(plain, stand_ins)
    return result


def _stand_ins(owned: Mapping[str, Mapping[str, Any]], md: Mapping[str, Any]) -> dict[str, str]:
    """What to write in place of each string, longest first so that a name goes before the hash in it."""
    revision, deployment = owned["controllerrevisions"].get("metadata", {}), owned["deployments"].get("metadata", {})
    labels = {**revision.get("labels", {}), **deployment.get("labels", {})}
    found = {md["metadata"]["uid"]: "<uid>", md["metadata"]["name"]: "<name>"}
    found |= {revision.get("name", ""): "<revision>", deployment.get("name", ""): "<pod set>"}
    found |= {labels.get(label, ""): f"<{label}>" for label in _HASH_LABELS}
    return {text: found[text] for text in sorted(filter(None, found), key=len, reverse=True)}


def _without(child: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in child.get("metadata", {}).items() if key not in _SERVER_SIDE}
    annotations = {k: v for k, v in metadata.pop("annotations", {}).items() if k != _BOOKKEEPING}
    plain = {key: value for key, value in child.items() if key not in _ALLOCATED}
    plain["metadata"] = {**metadata, "annotations": annotations}
    if "spec" in child:
        plain["spec"] = {key: value for key, value in child["spec"].items() if key not in _ALLOCATED}
    if "plan.json" in child.get("data", {}):
        plain["data"] = {"plan.json": {**json.loads(child["data"]["plan.json"]), "generation": "<number>"}}
    return plain


def _masked(value: Any, stand_ins: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        if value.get("name") == "MODELPIER_PLAN_PUBLIC_KEY":
            return {"name": value["name"], "value": "<key>"}
        return {key: _masked(item, stand_ins) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, stand_ins) for item in value]
    if isinstance(value, str):
        for text, stand_in in stand_ins.items():
            value = value.replace(text, stand_in)
        return _TIME.sub("<time>", value)
    return value


def _compare(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            yield from _compare(ours.get(key), theirs.get(key), f"{path}.{key}" if path else key)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (left, right) in enumerate(zip(ours, theirs, strict=True)):
            yield from _compare(left, right, f"{path}[{index}]")
    elif ours != theirs and not (_empty(ours) and _empty(theirs)):
        yield f"{path}: {json.dumps(ours)} | {json.dumps(theirs)}"


def _empty(value: Any) -> bool:
    return value is None or value in ({}, [], "")
