"""Triton's repository index: what there is, in its own words. Source: Triton's `extension_model_repository.md`."""

from __future__ import annotations

from modelpier_server.contract import ModelReport, ModelState

READY = "READY"
STATES = {
    ModelState.READY: READY,
    ModelState.DRAINING: "UNLOADING",
    ModelState.STOPPED: "UNAVAILABLE",
    ModelState.FAILED: "UNAVAILABLE",
}
"""Of Triton; all others are LOADING."""


def index_entry(report: ModelReport) -> dict[str, str]:
    """The reason alone, of the closed set: its text may name where models come from."""
    reason = report.reason.value if report.reason is not None else ""
    state = STATES.get(report.state, "LOADING")
    return {"name": report.name, "version": report.version, "state": state, "reason": reason}


def unloaded_entry(name: str, version: str) -> dict[str, str]:
    return {"name": name, "version": version, "state": "UNAVAILABLE", "reason": "unloaded"}
