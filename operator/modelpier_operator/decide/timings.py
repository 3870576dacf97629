"""How long the newest pod took, stage by stage: what to look at when a start is slow."""

from __future__ import annotations

from collections.abc import Iterable

from modelpier_operator.decide import clock
from modelpier_operator.decide.podset import Pod

_STAGES = {"download": "download", "load": "load", "warm_up": "warmUp"}


def of(pods: Iterable[Pod]) -> dict[str, float]:
    """Seconds by stage, of the youngest ready pod: schedule, pull, download, load, warmUp, as far as they are known."""
    ready = [p for p in pods if p.ready]
    if not ready:
        return {}
    newest = max(ready, key=lambda p: (p.created, p.name))
    return {**_kubernetes(newest), **_server(newest)}


def _kubernetes(pod: Pod) -> dict[str, float]:
    scheduled = pod.condition("PodScheduled")
    at = scheduled.get("lastTransitionTime") if scheduled.get("status") == "True" else None
    started = ((pod.container().get("state") or {}).get("running") or {}).get("startedAt")
    made = {"schedule": _between(pod.created, at)}
    if not pod.container().get("restartCount"):  # a restarted container pulls nothing
        made["pull"] = _between(at, started)
    return {stage: seconds for stage, seconds in made.items() if seconds is not None}


def _server(pod: Pod) -> dict[str, float]:
    models = pod.report.models if pod.report else ()
    found = models[0].timings if models else {}
    return {ours: round(found[theirs], 3) for theirs, ours in _STAGES.items() if theirs in found}


def _between(start: str | None, end: str | None) -> float | None:
    first, last = clock.parse(start), clock.parse(end)
    return max(0.0, (last - first).total_seconds()) if first and last else None
