"""Field ownership as the API server keeps it, as far as the operator can tell: maps by key, lists and selectors
whole.

Used by `support.api`. Sets are nested dicts as in managedFields' fieldsV1; a leaf is an empty one.
https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

Object = dict[str, Any]
Fields = dict[str, Any]
IDENTITY = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")
ATOMIC = ("selector", "podSelector", "nodeSelector")
"""Maps that are replaced as a whole (`x-kubernetes-map-type: atomic`)."""


def owned(manifest: Mapping[str, Any]) -> Fields:
    """The set of everything in a manifest that can be owned."""
    metadata = {k: v for k, v in manifest.get("metadata", {}).items() if k not in IDENTITY}
    body = {k: v for k, v in manifest.items() if k not in ("apiVersion", "kind", "metadata", "status")}
    return _set({**body, "metadata": metadata})


def _set(value: Mapping[str, Any]) -> Fields:
    return {f"f:{k}": _set(v) if isinstance(v, Mapping) and k not in ATOMIC else {} for k, v in value.items()}


def union(some: Fields, others: Fields) -> Fields:
    return {**some, **{k: union(some.get(k, {}), v) for k, v in others.items()}}


def minus(some: Fields, others: Fields) -> Fields:
    """Leaves of `some` that are not in `others`."""
    rest = {}
    for name, below in some.items():
        if name not in others:
            rest[name] = below
        elif below and (left := minus(below, others[name])):
            rest[name] = left
    return rest


def remove(value: Object, fields: Fields) -> None:
    for name, below in fields.items():
        key = name[2:]
        if key not in value:
            continue
        if below and isinstance(value[key], dict):
            remove(value[key], below)
            if not value[key]:
                del value[key]
        else:
            del value[key]


def merged(live: Any, wanted: Any) -> Any:
    if not isinstance(wanted, Mapping) or not isinstance(live, Mapping):
        return orjson.loads(orjson.dumps(wanted))
    return {**live, **{k: merged(None if k in ATOMIC else live.get(k), v) for k, v in wanted.items()}}


def changed(old: Any, new: Any) -> Fields:
    """The set of what differs between two objects, additions included."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return {}
    found: Fields = {}
    for key, value in new.items():
        if key not in old:
            found[f"f:{key}"] = _set(value) if isinstance(value, Mapping) and value else {}
        elif old[key] != value:
            found[f"f:{key}"] = changed(old[key], value)
    return found


def entry(manager: str, operation: str, fields: Fields) -> Object:
    return {"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields}


def fields_of(entries: list[Object], manager: str, operation: str) -> Fields:
    return next((e["fieldsV1"] for e in entries if (e["manager"], e["operation"]) == (manager, operation)), {})


def applied(live: Object, wanted: Object, manager: str) -> Object:
    """`live` after a forced server-side apply of `wanted`."""
    entries = live["metadata"].get("managedFields", [])
    before, now = fields_of(entries, manager, "Apply"), owned(wanted)
    others = [e for e in entries if (e["manager"], e["operation"]) != (manager, "Apply")]
    kept: Fields = now
    for other in others:
        kept = union(kept, other["fieldsV1"])
    result: Object = orjson.loads(orjson.dumps(live))
    remove(result, minus(before, kept))
    result = merged(result, {k: v for k, v in wanted.items() if k != "metadata"})
    metadata = {k: v for k, v in wanted["metadata"].items() if k not in IDENTITY}
    result["metadata"] = merged(result["metadata"], metadata)
    difference = changed(live, result)
    others = [{**e, "fieldsV1": minus(e["fieldsV1"], difference)} for e in others]
    result["metadata"]["managedFields"] = [*(e for e in others if e["fieldsV1"]), entry(manager, "Apply", now)]
    return result
