"""The dashboard asks for series that the server and the operator really expose."""

from __future__ import annotations

import json
import re

from modelpier_operator.telemetry import Telemetry
from modelpier_server.telemetry import Metrics
from support.helm import CHART

DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())


def exposed() -> set[str]:
    server = Metrics()
    server.hold("model", "1")
    families = re.findall(r"^# TYPE (\S+) (\S+)$", server.render().decode() + Telemetry().render(), re.MULTILINE)
    histograms = {
        name + suffix for name, kind in families if kind == "histogram" for suffix in ("_bucket", "_sum", "_count")
    }
    return {name for name, kind in families if kind != "histogram"} | histograms


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def test_every_series_exists() -> None:
    asked = {name for text in expressions() for name in re.findall(r"\b(?:nv|modelpier)_\w+", text)}
    assert asked
    assert asked <= exposed()


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
