"""Values that are null: whoever writes `operator:` with only comments below it, or `--set operator.replicas=null`.

What is empty by default may be null and means the same; any other one is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from support.helm import CHART, REGISTRY, TEMPLATE, Helm

from .conftest import Render, only

MAPS = {"operator.resources", "metrics.dashboard.labels"}
"""Not empty by default; null empties them."""
ALL = ("--set", "metrics.podMonitor.enabled=true,metrics.dashboard.enabled=true,operator.networkPolicy.enabled=true")


def leaves(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """What is set at once: a map whose keys are the user's own is one value."""
    for name, value in values.items():
        path = above + name
        if isinstance(value, dict) and value and path not in MAPS:
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


LEAVES = dict(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))
EMPTY = [path for path, value in LEAVES.items() if value in ("", [], {}) and path != "image.registry"]
NEEDED = [path for path, value in LEAVES.items() if value not in ("", [], {}) and path not in MAPS]
SECTIONS = {path.rpartition(".")[0] for path in LEAVES} - {""}
OUTER = [path for path in SECTIONS if "." not in path]
INNER = [path for path in SECTIONS if "." in path]


def nulls(paths: Iterable[str]) -> tuple[str, ...]:
    return ("--set", ",".join(f"{path}=null" for path in paths))


def named(path: str, done: CompletedProcess[str]) -> bool:
    """Helm 4: at '/operator': missing properties 'image', 'replicas'; Helm 3: operator: image is required."""
    section, _, name = path.rpartition(".")
    place = f"/{section.replace('.', '/')}" if section else ""
    later = rf"at '{place}': missing propert.*'{name}'"
    earlier = rf"{re.escape(section or '(root)')}: {name} is required"
    return done.returncode != 0 and re.search(f"{later}|{earlier}", done.stderr) is not None


@pytest.mark.parametrize("paths", [OUTER, INNER, NEEDED], ids=["outer sections", "inner sections", "values"])
def test_what_must_be_there_is_named(paths: list[str], helm: Helm) -> None:
    done = helm.run(*TEMPLATE, *REGISTRY, *nulls(paths))
    assert paths
    assert [path for path in paths if not named(path, done)] == [], done.stderr


def test_what_is_empty_may_be_null(render: Render) -> None:
    assert {"commonLabels", "operator.nodeSelector", "watchNamespaces", "server.proxy.noProxy"} <= set(EMPTY)
    null, usual = (render(*ALL, *more) for more in (nulls(EMPTY), ()))
    assert len(null) == len(usual)
    for ours, theirs in zip(null, usual, strict=True):
        assert without_empty(ours) == without_empty(theirs)


def without_empty(manifest: Any) -> Any:
    """For Kubernetes an empty variable is one without a value."""
    if isinstance(manifest, dict):
        return {k: without_empty(v) for k, v in manifest.items() if v not in ("", None)}
    return [without_empty(item) for item in manifest] if isinstance(manifest, list) else manifest


def test_null_empties_a_map(render: Render) -> None:
    manifests = render(*ALL, *nulls(sorted(MAPS)))
    (container,) = only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert "resources" not in container
    assert "grafana_dashboard" not in only(manifests, "ConfigMap")["metadata"]["labels"]
