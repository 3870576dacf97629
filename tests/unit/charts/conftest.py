"""Renders the chart with the real Helm."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.helm import MISSING, Helm, find_helm

VALUES = Path(__file__).parent / "values"

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


class Strict(yaml.SafeLoader):
    """As the API server reads: a key that is there twice is an error, and not the later one's victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"twice in one mapping: {sorted(k for k in keys if keys.count(k) > 1)}"
        return super().construct_mapping(node, deep)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    program = find_helm()
    if program is None:
        pytest.skip(MISSING)
    return Helm(program, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def template(helm: Helm) -> Callable[..., str]:
    """`template("--set", "a=b")`: what an installation would apply, as text; fails on an error of Helm."""

    def run(*arguments: str) -> str:
        return helm.template("--namespace", "modelpier-system", *arguments)

    return run


@pytest.fixture(scope="session")
def render(template: Callable[..., str]) -> Render:
    """As `template`, parsed."""

    def run(*arguments: str) -> list[Manifest]:
        return [document for document in yaml.load_all(template(*arguments), Strict) if document]

    return run


def only(manifests: list[Manifest], kind: str) -> Manifest:
    found = [m for m in manifests if m["kind"] == kind]
    assert len(found) == 1, f"{len(found)} of kind {kind}"
    return found[0]
