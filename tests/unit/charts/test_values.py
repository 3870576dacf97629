"""values.yaml and its schema: complete, explained, and a misspelt value is an error that names it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import pages
from support.helm import CHART, REGISTRY, TEMPLATE, Helm

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEXT = (CHART / "values.yaml").read_text()


def objects(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if "properties" in schema:
        yield path, schema
        for name, below in schema["properties"].items():
            yield from objects(below, f"{path}.{name}" if path else name)


def test_schema_and_values_have_the_same_keys() -> None:
    values = yaml.safe_load(TEXT)
    for path, schema in objects(SCHEMA):
        here = values
        for name in path.split(".") if path else ():
            here = here[name]
        optional = (
            {"global"}
            if not path
            else {"requests", "limits", "claims", "nodeAffinity", "podAffinity", "podAntiAffinity"}
        )
        assert set(schema["properties"]) - optional == set(here) - optional, path or "(top)"


def test_no_object_takes_unknown_keys() -> None:
    assert all(schema["additionalProperties"] is False for _, schema in objects(SCHEMA))


def test_every_value_has_a_comment() -> None:
    lines = TEXT.splitlines()
    for number, line in enumerate(lines):
        leaf = re.match(r"^( *)([A-Za-z]+):(?: (.+))?$", line)
        if leaf is None or (leaf[3] is None):
            continue  # a section; its values have comments of their own
        inside_explained_map = lines[number - 1].lstrip().startswith(("requests:", "resources:"))
        assert lines[number - 1].lstrip().startswith("#") or inside_explained_map, f"line {number + 1}: {line.strip()}"


@pytest.mark.parametrize(
    ("assignment", "field", "told"),
    [
        ("operator.replcas=3", "operator", "replcas"),
        ("watchNamespace={a}", "", "watchNamespace"),
        ("operator.replicas=two", "operator.replicas", "integer"),
        ("image.pullPolicy=Sometimes", "image.pullPolicy", "IfNotPresent"),
        ("watchNamespaces=team-a", "watchNamespaces", "array"),
        ("watchNamespaces={Team_A}", "watchNamespaces.0", "pattern"),
        ("server.image.digest=sha256:12", "server.image.digest", "pattern"),
        ("server.proxy.httpProxy=proxy:3128", "server.proxy.httpProxy", "pattern"),
        ("allowPodOverrides=maybe", "allowPodOverrides", "boolean"),
        ("operator.leaderElection.leaseDuration=0", "operator.leaderElection.leaseDuration", ""),
        ("metrics.podMonitor.interval=often", "metrics.podMonitor.interval", "pattern"),
        ("commonLabels.foo=a b!", "commonLabels.foo", "pattern"),
        ("commonLabels.a@b=x", "commonLabels", "a@b"),
        ("operator.nodeSelector.a@b=x", "operator.nodeSelector", "a@b"),
        ("operator.podAnnotations.a@b=x", "operator.podAnnotations", "a@b"),
        ("fullnameOverride=a.b", "fullnameOverride", "pattern"),
        ("fullnameOverride=1a", "fullnameOverride", "pattern"),
        ("nameOverride=a.b", "nameOverride", "pattern"),
        ("operator.env[0].name=A,operator.env[0].value=1", "operator.env.0.value", "string"),
        ("operator.resources.limits.memory=2GB", "operator.resources.limits.memory", "pattern"),
    ],
)
def test_a_bad_value_is_named(assignment: str, field: str, told: str, helm: Helm) -> None:
    """Helm 3 before 3.18 writes a.b where later ones write /a/b."""
    done = helm.run(*TEMPLATE, *REGISTRY, "--set", assignment)
    assert done.returncode != 0
    assert re.search(field.replace(".", "[./]") + ".*" + told, done.stderr), done.stderr


@pytest.mark.parametrize("field", ["commonLabels", "operator.podLabels"])
@pytest.mark.parametrize("label", ["app.kubernetes.io/name", "helm.sh/chart"])
def test_labels_of_the_chart_itself_are_refused(field: str, label: str, helm: Helm) -> None:
    done = helm.run(*TEMPLATE, *REGISTRY, "--set-json", f"{field}={json.dumps({label: 'x'})}")
    assert done.returncode != 0
    assert f"{field}: {label} is set by the chart itself: choose another label" in done.stderr


def test_variables_of_the_chart_itself_are_refused(helm: Helm) -> None:
    done = helm.run(*TEMPLATE, *REGISTRY, "--set", "operator.env[0].name=MODELPIER_LOG_LEVEL")
    assert done.returncode != 0
    assert "operator.env: MODELPIER_LOG_LEVEL is set by the chart itself" in done.stderr
    done = helm.run(*TEMPLATE, *REGISTRY, "--set", "operator.env[0].name=A,operator.env[1].name=A")
    assert done.returncode != 0
    assert "operator.env: A is there twice" in done.stderr


def test_a_release_may_have_dots_in_its_name(helm: Helm) -> None:
    rendered = helm("template", "a.b", *TEMPLATE[2:], *REGISTRY)
    names = {m["metadata"]["name"] for m in yaml.safe_load_all(rendered) if m}
    assert "a-b-modelpier-operator-metrics" in names, "a Service's name may have none"


def test_a_release_that_begins_with_no_letter_needs_another_name(helm: Helm) -> None:
    release = ("template", "1a", *TEMPLATE[2:], *REGISTRY)
    done = helm.run(*release)
    assert done.returncode != 0
    assert "fullnameOverride: must be set, since the release's name 1a begins with no letter" in done.stderr
    assert "name: other-operator-metrics" in helm(*release, "--set", "fullnameOverride=other")


@pytest.mark.parametrize("block", pages.values(), ids=str)
def test_values_of_the_documentation_are_right(block: pages.Block, helm: Helm, tmp_path: Path) -> None:
    shown = tmp_path / "values.yaml"
    shown.write_text(block.text)
    helm.template("--values", str(shown))


def test_there_are_values_in_the_documentation() -> None:
    assert pages.values()


INSTALLS = [(place, words) for place, words in pages.commands("helm") if words[0] == "install"]


@pytest.mark.parametrize("words", [words for _, words in INSTALLS], ids=[place for place, _ in INSTALLS])
def test_installations_of_the_documentation_are_whole(words: list[str], helm: Helm) -> None:
    """As typed on a cluster that has nothing of Modelpier's yet, not even its namespace."""
    arguments = [str(CHART) if word == "charts/modelpier" else word.replace("REGISTRY", "r.example") for word in words]
    helm("template", *arguments[1:], *TEMPLATE[3:])
    assert "--create-namespace" in words


def test_there_are_installations_in_the_documentation() -> None:
    assert len(INSTALLS) >= 2


def test_an_account_of_somebody_else_needs_its_name(helm: Helm) -> None:
    done = helm.run(*TEMPLATE, *REGISTRY, "--set", "serviceAccount.create=false")
    assert done.returncode != 0
    assert "serviceAccount.name: must be set" in done.stderr


def test_a_leader_gives_up_before_another_one_may_begin(helm: Helm) -> None:
    done = helm.run(*TEMPLATE, *REGISTRY, "--set", "operator.leaderElection.renewDeadline=15")
    assert done.returncode != 0
    assert "operator.leaderElection.renewDeadline: must be less than leaseDuration" in done.stderr
    done = helm.run(*TEMPLATE, *REGISTRY, "--set", "operator.leaderElection.retryPeriod=20")
    assert done.returncode != 0
    assert "operator.leaderElection.retryPeriod: must be less than renewDeadline" in done.stderr


def test_the_registry_has_no_default(helm: Helm) -> None:
    done = helm.run(*TEMPLATE)
    assert done.returncode != 0
    assert "image.registry: say where the images are" in done.stderr
