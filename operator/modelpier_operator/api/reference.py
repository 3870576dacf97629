"""The reference pages of the ModelDeployment and of its conditions, made from the types: called by `generate`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from modelpier_operator import names
from modelpier_operator.api import rules
from modelpier_operator.api.conditions import ConditionType, Reason
from modelpier_operator.api.crd import structural
from modelpier_operator.api.status import ModelDeploymentStatus
from modelpier_operator.api.v1alpha1 import ModelDeploymentSpec

_NOTE = "<!-- Generated from operator/modelpier_operator/api by `make generate`. Do not edit. -->\n"
_SMALLEST = f"""apiVersion: {names.API_VERSION}
kind: {names.KIND}
metadata:
  name: resnet50
spec:
  model:
    uri: s3://models/resnet50/3/model.onnx
"""

_INTRODUCTION = """\
`status.conditions` of a ModelDeployment. Each has a reason out of a closed set and a message with the details.
Tools that know kstatus (Helm, Flux, Argo CD) read them as they are, and so does
`kubectl wait md/NAME --for=condition=Ready`.
"""
_STALLS = """\
*Stalls* means that only a change of the spec helps: `Stalled` becomes `True`.
All else mends itself once its cause is gone.
"""


def modeldeployment() -> str:
    """docs/reference/modeldeployment.md: a table for each section of spec and status."""
    head = (
        f"{_NOTE}# ModelDeployment\n\n"
        f"`{names.API_VERSION}`, kind `{names.KIND}`, short name `md`, namespaced. The smallest one:\n\n"
        f"```yaml\n{_SMALLEST}```\n\n"
        f"`metadata.name` {rules.NAME.message}. The same text is in the cluster: `kubectl explain md.spec.model`.\n\n"
    )
    sections = (
        *_sections("spec", structural(ModelDeploymentSpec)),
        *_sections("status", structural(ModelDeploymentStatus)),
    )
    return head + "\n".join(sections)


def conditions() -> str:
    """docs/reference/conditions.md: what each condition means, and every reason with cause and remedy."""
    parts = [
        f"{_NOTE}# Conditions and reasons\n",
        _INTRODUCTION,
        _table(("Condition", "True means"), ((f"`{kind}`", kind.meaning) for kind in ConditionType)),
        "## As it should be, and on the way\n",
        _table(("Reason", "Means"), ((f"`{r}`", r.cause) for r in Reason if not r.failure)),
        "## What can be wrong\n",
        _STALLS,
        _table(
            ("Reason", "Cause", "Remedy", "Stalls"),
            ((f"`{r}`", r.cause, r.remedy, "yes" if r.permanent else "") for r in Reason if r.failure),
        ),
    ]
    return "\n".join(parts)


def _sections(path: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """One table for each object with fields, outer ones first."""
    required = schema.get("required", ())
    fields = schema["properties"]
    yield f"## {path}\n\n{schema.get('description', '')}\n"
    yield _table(
        ("Field", "Type", "Default", "Says"),
        (
            (f"`{name}`", _type(field), _default(field, name in required), _says(field))
            for name, field in fields.items()
        ),
    )
    if held := schema.get("x-kubernetes-validations"):
        yield "".join(f"- `{rule['fieldPath'][1:]}`: {rule['message']}.\n" for rule in held)
    for name, field in fields.items():
        if "properties" in field and name != "podTemplate":
            yield from _sections(f"{path}.{name}", field)
        if "properties" in field.get("items", {}):
            yield from _sections(f"{path}.{name}[]", field["items"])


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " \\| ".join(schema["enum"])
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"map of {_type(schema['additionalProperties'])}"
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = f" {low} to {high}" if low is not None and high is not None and "default" in schema else ""
    return f"{schema['type']}{bounds}"


def _default(schema: Mapping[str, Any], required: bool) -> str:
    if required:
        return "*required*"
    return f"`{json.dumps(schema['default'])}`" if "default" in schema and schema["type"] != "object" else ""


def _says(schema: Mapping[str, Any]) -> str:
    return str(schema.get("description", "")).replace("|", "\\|")


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = (head, ("---",) * len(head), *rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
