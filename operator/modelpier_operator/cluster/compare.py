"""Is what we want already there, and what must be sent if not. Pure; used by `apply` and `status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelpier_operator import names

Object = dict[str, Any]
_WHOLE = frozenset({"selector", "podSelector", "namespaceSelector", "nodeSelector", "ingress"})
"""One key more selects something else, or lets somebody else in: the server takes these as one value, too
(`x-kubernetes-map-type: atomic`), and adds nothing to them.
"""
_EMPTY: tuple[Any, ...] = (None, "", {}, [])


def contains(live: Any, wanted: Any) -> bool:
    """Whether every field of `wanted` is in `live`, so that what the server added is ignored.

    A list must have as many items, pairwise containing; a selector must be the same. An empty value may be missing: the
    server drops those.
    """
    # The commonest first: this looks at every field of every object in every pass.
    if isinstance(wanted, str):
        return bool(live == wanted)
    if isinstance(wanted, dict):
        return isinstance(live, dict) and _has_all(live, wanted)
    if isinstance(wanted, list | tuple):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(contains(there, want) for there, want in zip(live, wanted, strict=True))
        )
    return bool(live == wanted)


def _has_all(live: Object, wanted: Object) -> bool:
    for name, value in wanted.items():
        if name in live:
            if not (live[name] == value if name in _WHOLE else contains(live[name], value)):
                return False
        elif value not in _EMPTY:
            return False
    return True


def stamped(manifest: Mapping[str, Any]) -> Object:
    """The manifest with the hash of itself among its annotations: a field that is no longer wanted changes the hash."""
    metadata = manifest["metadata"]
    annotations = {**(metadata.get("annotations") or {})}
    annotations.pop(names.ANNOTATION_APPLIED, None)
    plain = {**manifest, "metadata": {**metadata, "annotations": annotations}}
    annotations = {**annotations, names.ANNOTATION_APPLIED: names.digest(plain, 16)}
    return {**plain, "metadata": {**metadata, "annotations": annotations}}


def merge_patch(old: Any, new: Any) -> Any:
    """The JSON merge patch (RFC 7386) that holds all of `new` and removes what only `old` has.

    All of it, not only the differences: the outcome is `new` even where `old` was not what the server holds.
    """
    if not isinstance(new, Mapping):
        return new
    before = old if isinstance(old, Mapping) else {}
    gone = {name: None for name in before if name not in new}
    return {**gone, **{name: merge_patch(before.get(name), value) for name, value in new.items()}}
