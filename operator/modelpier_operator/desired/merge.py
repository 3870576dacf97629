"""A strategic merge of pod templates, for `resources.podTemplate`: what the user says wins, lists merge by their keys.

https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/#notes-on-the-strategic-merge-patch
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelpier_operator.api.merge_keys import MERGED_BY
from modelpier_operator.api.quantity import normalise_quantity


def merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`null` removes a field. Neither argument is changed."""
    result = dict(base)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _value(key, result.get(key), value)
    return result


def canonical(template: Mapping[str, Any]) -> dict[str, Any]:
    """Quantities as the API server prints them, nothing empty: else the live object would look changed for ever."""
    clean = pruned(template)
    spec = clean.get("spec", {})
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        resources = container.get("resources")
        for amounts in resources.values() if isinstance(resources, dict) else ():  # the API server says no to others
            if isinstance(amounts, dict):
                amounts.update({name: normalise_quantity(amount) for name, amount in amounts.items()})
    for volume in spec.get("volumes", ()):
        empty = volume.get("emptyDir") or {}
        if "sizeLimit" in empty:
            empty["sizeLimit"] = normalise_quantity(empty["sizeLimit"])
    return clean


def pruned(template: Mapping[str, Any]) -> dict[str, Any]:
    """Without empty fields."""
    clean: dict[str, Any] = _pruned(template)
    return clean


def _value(key: str, base: Any, patch: Any) -> Any:
    if isinstance(patch, Mapping):
        return merged(base if isinstance(base, Mapping) else {}, patch)
    if isinstance(patch, list) and isinstance(base, list) and key in MERGED_BY:
        return _by_key(base, patch, MERGED_BY[key])
    return patch


def _by_key(base: Sequence[Mapping[str, Any]], patch: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    result = list(base)
    for item in patch:
        place = next((i for i, old in enumerate(result) if old.get(key) == item.get(key)), None)
        if place is None:
            result.append(merged({}, item))
        else:
            result[place] = merged(result[place], item)
    return result


_MAY_BE_EMPTY = frozenset({"emptyDir", "labelSelector", "configMap"})
"""An empty `emptyDir: {}` says something; an empty list or string does not."""


def _pruned(value: Any) -> Any:
    # Strings first: most of a template, and a test for Mapping is dear.
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        items = [(key, _pruned(item)) for key, item in value.items()]
        return {key: item for key, item in items if key in _MAY_BE_EMPTY or item not in (None, "", [], {})}
    if isinstance(value, list | tuple):
        return [_pruned(item) for item in value]
    return value
