"""The CustomResourceDefinition, made from the types of `v1alpha1` and `status`: called by `generate` alone.

pydantic's JSON schema becomes a structural schema: no references, no unions with null, no closed objects (the API
server prunes or refuses unknown fields by itself). A section's default is whole, because the API server judges it by
the rules before it fills in what is inside.
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from modelpier_operator import names
from modelpier_operator.api import rules
from modelpier_operator.api.rules import Rule
from modelpier_operator.api.status import ModelDeploymentStatus
from modelpier_operator.api.v1alpha1 import ModelDeploymentSpec

NAME = f"{names.PLURAL}.{names.GROUP}"
FILE = f"{names.GROUP}_{names.PLURAL}.yaml"
HEADER = "# Generated from operator/modelpier_operator/api by `make generate`. Do not edit.\n"
_KEPT = (
    "type",
    "format",
    "enum",
    "default",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields",
)
_DROPPED = {"title", "description", "properties", "items", "additionalProperties", "x-rules"}
_INT32 = (1 << 31) - 1


def crd() -> dict[str, Any]:
    """The whole object."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.KIND.lower(),
                "shortNames": ["md"],
                "categories": ["modelpier", "ml"],
            },
            "versions": [_version()],
        },
    }


def render() -> str:
    """YAML, the same for the same types."""
    return HEADER + yaml.safe_dump(crd(), sort_keys=False, width=120, allow_unicode=True)


def _version() -> dict[str, Any]:
    return {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": _columns(),
        "schema": {"openAPIV3Schema": _root()},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
    }


def _root() -> dict[str, Any]:
    return {
        "description": "A model, served: the operator makes pods, a Service and all else that it needs.",
        "type": "object",
        "required": ["metadata", "spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{names.GROUP}/{names.VERSION}"},
            "kind": {"type": "string", "description": names.KIND},
            "metadata": {"type": "object"},
            "spec": structural(ModelDeploymentSpec),
            "status": structural(ModelDeploymentStatus),
        },
        "x-kubernetes-validations": [{"rule": rules.NAME.cel, "message": f"{rules.NAME.field} {rules.NAME.message}"}],
    }


def _columns() -> list[dict[str, Any]]:
    ready = '.status.conditions[?(@.type=="Ready")]'
    columns = (
        ("URL", "string", ".status.url", "Where it serves inside the cluster", 0),
        ("Version", "string", ".status.version", "Version that serves", 0),
        ("Ready", "string", f"{ready}.status", "Whether the newest spec serves at full strength", 0),
        ("Replicas", "integer", ".status.readyReplicas", "Pods that are ready", 0),
        ("Reason", "string", f"{ready}.reason", "Why it is ready or not", 0),
        ("Wanted", "integer", ".spec.replicas", "Pods that are wanted", 1),
        ("Model", "string", ".spec.model.uri", "Where the model is", 1),
        ("Message", "string", f"{ready}.message", "What to do", 1),
        ("Age", "date", ".metadata.creationTimestamp", "", 0),
    )
    return [
        {"name": name, "type": kind, "jsonPath": path}
        | ({"description": text} if text else {})
        | ({"priority": priority} if priority else {})
        for name, kind, path, text, priority in columns
    ]


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """Structural OpenAPI v3 schema of a type. Raises NotImplementedError for a keyword that it knows no form of."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}))


def _convert(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    flat = _flatten(schema, definitions)
    if unknown := flat.keys() - set(_KEPT) - _DROPPED:
        raise NotImplementedError(f"no structural form is known for {', '.join(sorted(unknown))}")
    made: dict[str, Any] = {}
    if text := flat.get("description"):
        made["description"] = " ".join(str(text).split())
    # Copies: YAML would write a value that stands twice as an anchor and an alias.
    made |= {key: copy.deepcopy(flat[key]) for key in _KEPT if key in flat}
    if made["type"] == "integer" and "format" not in flat:
        made["format"] = "int32" if made.get("maximum", _INT32) <= _INT32 else "int64"
    if made["type"] == "object" and made.get("default") is not None:
        made["default"] = _without_empty(made["default"])
        if not made["default"]:
            del made["default"]  # nothing inside has a default: no empty object need stand in every manifest
    if "properties" in flat:
        made["properties"] = {name: _convert(part, definitions) for name, part in flat["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(flat.get(key), Mapping):
            made[key] = _convert(flat[key], definitions)
    if "x-rules" in flat:
        made["x-kubernetes-validations"] = [_validation(rule) for rule in flat["x-rules"]]
    return made


def _without_empty(default: Mapping[str, Any]) -> dict[str, Any]:
    """What is None or empty in a pydantic default is absent in a manifest."""
    parts = {key: _without_empty(value) if isinstance(value, Mapping) else value for key, value in default.items()}
    return {key: value for key, value in parts.items() if value not in (None, {}, [])}


def _flatten(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Without $ref and "or null": an optional field is one that may be absent."""
    flat = {key: value for key, value in schema.items() if key not in {"$defs", "$ref", "anyOf"}}
    if "$ref" in schema:
        flat = _flatten(definitions[schema["$ref"].rpartition("/")[2]], definitions) | flat
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            flat = _flatten(choice, definitions) | flat
    if flat.get("default", ...) is None:
        del flat["default"]
    return flat


def _validation(rule: Rule) -> dict[str, str]:
    return {"fieldPath": f".{rule.field}", "message": rule.message, "rule": rule.cel}
