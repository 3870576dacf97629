import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import BaseModel, Field

from modelpier_operator import names
from modelpier_operator.api import crd, generate, rules
from modelpier_operator.api.status import ModelDeploymentStatus
from modelpier_operator.api.v1alpha1 import ModelDeploymentSpec

ROOT = Path(__file__).resolve().parents[4]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema below, with its path."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


SPEC = list(nodes(crd.structural(ModelDeploymentSpec), "spec"))
STATUS = list(nodes(crd.structural(ModelDeploymentStatus), "status"))
FREE = "spec.resources.podTemplate"


@pytest.mark.parametrize("path", generate.FILES)
def test_committed_files_are_the_generated_ones(path: str) -> None:
    assert (ROOT / path).read_text() == generate.FILES[path](), "run make generate"


def test_the_crd_is_small() -> None:
    assert len(crd.render().encode()) < 100_000


def test_people_read_it_without_looking_things_up() -> None:
    assert not [token for token in yaml.scan(crd.render()) if isinstance(token, yaml.AnchorToken | yaml.AliasToken)]


@pytest.mark.parametrize(("path", "schema"), SPEC + STATUS)
def test_a_schema_is_structural(path: str, schema: dict[str, Any]) -> None:
    assert isinstance(schema["type"], str)
    assert not schema.keys() & {"$ref", "anyOf", "allOf", "oneOf", "nullable", "title", "$defs", "const"}
    assert schema.get("additionalProperties") is not False
    assert not ("properties" in schema and "additionalProperties" in schema)


@pytest.mark.parametrize(("path", "schema"), [(p, s) for p, s in SPEC + STATUS if not p.endswith("[]")])
def test_every_field_is_explained(path: str, schema: dict[str, Any]) -> None:
    if not path.startswith(f"{FREE}."):
        assert re.fullmatch(r"[A-Z{].*|(false|metav1).*", schema["description"])
        assert "  " not in schema["description"]


@pytest.mark.parametrize(("path", "schema"), [(p, s) for p, s in SPEC if not p.startswith(FREE)])
def test_everything_has_a_bound_so_that_cel_stays_cheap(path: str, schema: dict[str, Any]) -> None:
    match schema["type"]:
        case "string" if "enum" not in schema:
            assert "maxLength" in schema or re.search(r"\{\d+(,\d+)?\}", schema["pattern"]) is not None
        case "integer":
            assert {"minimum", "maximum"} <= schema.keys()
        case "array":
            assert "maxItems" in schema
        case "object" if "additionalProperties" in schema:
            assert "maxProperties" in schema


def test_unknown_fields_are_kept_in_the_override_alone() -> None:
    keeping = [path for path, schema in SPEC + STATUS if schema.get("x-kubernetes-preserve-unknown-fields")]
    assert keeping == [f"{FREE}.spec"]


def test_defaults_of_sections_are_whole() -> None:
    for path, schema in SPEC:
        if schema["type"] == "object" and "default" in schema:
            inside = {name for name, part in schema["properties"].items() if "default" in part}
            assert schema["default"].keys() == inside, path


def test_rules_say_which_field_and_fit_into_a_line() -> None:
    for path, schema in SPEC:
        for rule in schema.get("x-kubernetes-validations", ()):
            target = schema
            for step in rule["fieldPath"].strip(".").split("."):
                target = target["properties"][step]
            assert "\n" not in rule["message"], path
            assert len(rule["message"]) < 160, path


def test_names_of_the_resource() -> None:
    made = crd.crd()
    assert made["metadata"]["name"] == "modeldeployments.modelpier.dev"
    assert made["spec"]["names"] == {
        "kind": names.KIND,
        "listKind": "ModelDeploymentList",
        "plural": names.PLURAL,
        "singular": "modeldeployment",
        "shortNames": ["md"],
        "categories": ["modelpier", "ml"],
    }
    assert yaml.safe_load(crd.render()) == made


def test_a_keyword_without_structural_form_is_not_dropped_silently() -> None:
    class Even(BaseModel):
        number: Annotated[int, Field(multiple_of=2)]

    with pytest.raises(NotImplementedError, match="multipleOf"):
        crd.structural(Even)


def test_an_optional_field_loses_its_null() -> None:
    class Optional(BaseModel):
        text: str | None = None
        free: dict[str, Any] | None = None

    properties = crd.structural(Optional)["properties"]
    assert properties == {"text": {"type": "string"}, "free": {"type": "object"}}


@pytest.mark.parametrize("name", ["a", "resnet50", "a-b", "a" * 63])
def test_a_name_that_a_service_may_have(name: str) -> None:
    assert rules.NAME.holds(name)


@pytest.mark.parametrize("name", ["", "1a", "a.b", "A", "-a", "a-", "a" * 64, "a\n"])
def test_a_name_that_no_service_may_have(name: str) -> None:
    assert not rules.NAME.holds(name)
