"""The chart as Helm renders it, whole: MODELPIER_UPDATE_GOLDEN=1 rewrites the files after a change that was meant."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from support.helm import CHART, REGISTRY, ROOT, Helm

from .conftest import VALUES, Render

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in VALUES.glob("*.yaml"))


def comparable(text: str) -> str:
    """Without CRDs, which are generated and compared elsewhere and would hide everything else, and without the blank
    lines that Helm 4 ends a document with and Helm 3 does not."""
    documents = [document.rstrip("\n") for document in text.split("\n---\n")]
    return "\n---\n".join(d for d in documents if "\nkind: CustomResourceDefinition\n" not in f"\n{d}") + "\n"


@pytest.mark.parametrize("case", CASES)
def test_renders_as_expected(case: str, template: Callable[..., str]) -> None:
    rendered = comparable(template("--values", str(VALUES / f"{case}.yaml")))
    golden = GOLDEN / f"{case}.yaml"
    if os.environ.get("MODELPIER_UPDATE_GOLDEN"):
        golden.write_text(rendered)
    assert rendered == golden.read_text()


@pytest.mark.parametrize("case", CASES)
def test_lint_has_nothing_to_say(case: str, helm: Helm) -> None:
    done = helm.run("lint", "--strict", str(CHART), *REGISTRY, "--values", str(VALUES / f"{case}.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_crds_are_those_of_the_repository() -> None:
    """`make generate` writes both."""
    ours = {path.name: path.read_text() for path in (CHART / "files" / "crds").iterdir()}
    assert ours == {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    assert ours


def test_crds_are_rendered_unchanged_and_stay(render: Render) -> None:
    """To the last digit: Helm reads integers as floating-point numbers."""
    source = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    rendered = [m for m in render() if m["kind"] == "CustomResourceDefinition"]
    assert [m["spec"] for m in rendered] == [m["spec"] for m in source]
    assert all(m["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for m in rendered)


def test_crds_can_go_with_the_release(render: Render) -> None:
    rendered = [m for m in render("--set", "crds.keep=false") if m["kind"] == "CustomResourceDefinition"]
    assert rendered
    assert not any("helm.sh/resource-policy" in m["metadata"].get("annotations", {}) for m in rendered)


def test_old_kubernetes_is_refused(helm: Helm) -> None:
    done = helm.run("template", "modelpier", str(CHART), *REGISTRY, "--kube-version", "1.32.9")
    assert done.returncode != 0
    assert "1.33" in done.stderr
