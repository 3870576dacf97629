"""Renders the chart with the real Helm: the one named by MODELPIER_HELM, in PATH, or built for the local cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelpier_cluster.build import TOOLS, programs
from modelpier_cluster.errors import ClusterError

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts" / "modelpier"
VALUES = Path(__file__).parent / "values"

Manifest = dict[str, Any]
Helm = Callable[..., subprocess.CompletedProcess[str]]
Render = Callable[..., list[Manifest]]


def find_helm() -> str | None:
    if found := os.environ.get("MODELPIER_HELM") or shutil.which("helm"):
        return found
    try:
        return str(programs([TOOLS]) / "helm")
    except ClusterError:
        return None


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Runs Helm with folders of its own, so that no plug-in or setting of the user matters."""
    program = find_helm()
    if program is None:
        pytest.skip("no helm: `make cluster-build` builds one, or set MODELPIER_HELM")
    home = tmp_path_factory.mktemp("helm")
    env = os.environ | {f"HELM_{kind}_HOME": str(home / kind) for kind in ("CONFIG", "CACHE", "DATA")}
    env["KUBECONFIG"] = str(home / "none")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture(scope="session")
def template(helm: Helm) -> Callable[..., str]:
    """`template("--set", "a=b")`: what an installation would apply, as text; fails on an error of Helm."""

    def run(*arguments: str) -> str:
        done = helm("template", "modelpier", str(CHART), "--namespace", "modelpier-system", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def render(template: Callable[..., str]) -> Render:
    """As `template`, parsed."""

    def run(*arguments: str) -> list[Manifest]:
        return [document for document in yaml.safe_load_all(template(*arguments)) if document]

    return run


def only(manifests: list[Manifest], kind: str) -> Manifest:
    found = [m for m in manifests if m["kind"] == kind]
    assert len(found) == 1, f"{len(found)} of kind {kind}"
    return found[0]
