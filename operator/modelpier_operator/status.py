"""What people and tools read of a ModelDeployment: conditions and numbers, told from pods, never read back.

Written for kstatus (Ready, Stalled), `kubectl wait`, the scale subresource and for eyes. Nothing in it changes by
itself: no counters, no ages; a condition's time changes with its status alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelpier_operator.api.conditions import ConditionType, Reason
from modelpier_operator.decide import address, clock, diagnose, timings
from modelpier_operator.decide.diagnose import Finding
from modelpier_operator.decide.goals import Goal, Guest
from modelpier_operator.decide.rollout import Phase
from modelpier_operator.decide.verdict import Verdict, View, verdict
from modelpier_operator.settings import Settings

Truth = tuple[bool, Finding]


def status(view: View, settings: Settings) -> dict[str, Any]:
    """The complete status; fields without a value are absent."""
    judged = verdict(view)
    made: dict[str, Any] = {
        "observedGeneration": view.facts.generation,
        "url": address.url(view.facts.md, settings.cluster_domain),
        "replicas": len(view.production),
        "readyReplicas": view.serving,
        "selector": _selector(view),
        "conditions": conditions(view, judged),
    }
    if view.decision:
        made["version"] = (view.decision.stable or view.decision.wanted).version
        made["revisions"] = [*(_revision(view, goal, judged) for goal in view.shown), *_without_pods(view, judged)]
        made["rollout"] = _rollout(view)
    if measured := timings.of(view.production):
        made["timings"] = measured
    return made


def conditions(view: View, judged: Verdict) -> list[dict[str, Any]]:
    """All types, in their order; `lastTransitionTime` stays while a condition's status stays."""
    truths: dict[ConditionType, Truth] = {
        ConditionType.READY: (judged.full, _with_remedy(judged.finding)),
        ConditionType.AVAILABLE: _available(view, judged),
        ConditionType.PROGRESSING: _progressing(judged),
        ConditionType.DEGRADED: _degraded(judged),
        ConditionType.STALLED: _stalled(judged),
        ConditionType.MODEL_RESOLVED: _resolved(view, judged),
        ConditionType.SCHEDULED: _scheduled(view, judged),
        ConditionType.LOADED: _loaded(view, judged),
    }
    before = {c.get("type"): c for c in (view.facts.md.get("status") or {}).get("conditions") or ()}
    now = clock.second(view.now)
    return [
        _condition(kind, truths[kind], before.get(kind.value) or {}, view.facts.generation, now)
        for kind in ConditionType
    ]


# ------------------------------------------------------------------------------------------------ conditions
def _available(view: View, judged: Verdict) -> Truth:
    if view.serving:
        return True, Finding(Reason.SERVING, f"{view.serving} pods take requests.")
    return False, judged.finding


def _progressing(judged: Verdict) -> Truth:
    if judged.full:
        return False, Finding(Reason.COMPLETE, Reason.COMPLETE.cause)
    return not judged.stalled, judged.finding


def _degraded(judged: Verdict) -> Truth:
    if judged.finding.reason.failure:
        return True, _with_remedy(judged.finding)
    return False, Finding(Reason.HEALTHY, Reason.HEALTHY.cause)


def _stalled(judged: Verdict) -> Truth:
    if judged.stalled:
        return True, _with_remedy(judged.finding)
    settled = Finding(Reason.COMPLETE, Reason.COMPLETE.cause)
    return False, settled if judged.full else Finding(judged.finding.reason)


def _resolved(view: View, judged: Verdict) -> Truth:
    wanted = view.decision.wanted if view.decision else None
    if wanted is None or not wanted.digest:
        return False, _cause(judged)
    given = Reason.DIGEST_GIVEN if wanted.spec.model.digest else Reason.DIGEST_PINNED
    return True, Finding(given, wanted.digest)


def _scheduled(view: View, judged: Verdict) -> Truth:
    if not view.replicas:
        return True, Finding(Reason.SCALED_TO_ZERO)
    pods = view.newest.live.active if view.newest else ()
    if len(pods) >= view.replicas and all(p.node for p in pods):
        return True, Finding(Reason.SCHEDULED, Reason.SCHEDULED.cause)
    waiting = [diagnose.pod(p, "") for p in pods if not p.node]
    return False, waiting[0] if waiting else _cause(judged)


def _loaded(view: View, judged: Verdict) -> Truth:
    if not view.replicas:
        return True, Finding(Reason.SCALED_TO_ZERO)
    if view.newest and view.newest.ready >= view.replicas:
        return True, Finding(Reason.LOADED, Reason.LOADED.cause)
    return False, _cause(judged)


def _cause(judged: Verdict) -> Finding:
    """Why something is not so yet, where the verdict itself is about success."""
    return Finding(Reason.CREATING) if judged.full else judged.finding


def _with_remedy(finding: Finding) -> Finding:
    """What to do about it, where something has to be done."""
    told = finding.message.rstrip() or finding.reason.cause
    if not finding.reason.remedy:
        return Finding(finding.reason, told)
    return Finding(finding.reason, f"{told}{'' if told.endswith('.') else '.'} {finding.reason.remedy}")


def _condition(
    kind: ConditionType, truth: Truth, before: Mapping[str, Any], generation: int, now: str
) -> dict[str, Any]:
    value = "True" if truth[0] else "False"
    kept = before.get("lastTransitionTime") if before.get("status") == value else None
    return {
        "type": kind.value,
        "status": value,
        "observedGeneration": generation,
        "lastTransitionTime": kept or now,
        "reason": truth[1].reason.value,
        "message": truth[1].message or truth[1].reason.cause,
    }


# ------------------------------------------------------------------------------------------------ the rest
def _selector(view: View) -> str:
    labels = address.selector(view.facts.md, view.selected)
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))


def _revision(view: View, goal: Goal, judged: Verdict) -> dict[str, Any]:
    revision, live = goal.revision, goal.live
    newest = view.decision is not None and view.decision.wanted.name == revision.name
    made: dict[str, Any] = {
        "name": revision.name,
        "version": revision.version,
        "digest": revision.digest,
        "podSet": goal.name,
        "weight": _weight(view, goal),
        "replicas": len(live.active),
        "readyReplicas": goal.ready,
        "phase": _phase(view, goal),
        "reason": judged.finding.reason.value if newest else None,
        "message": judged.finding.message if newest else None,
    }
    return {key: value for key, value in made.items() if value not in (None, "")}


def _without_pods(view: View, judged: Verdict) -> list[dict[str, Any]]:
    """A candidate that was given up: no pod knows it any more, and people want to."""
    wanted = view.decision.wanted if view.decision and view.decision.phase is Phase.FAILED else None
    if wanted is None or view.newest:
        return []
    made = {
        "name": wanted.name,
        "version": wanted.version,
        "digest": wanted.digest,
        "weight": 0,
        "replicas": 0,
        "readyReplicas": 0,
        "phase": Phase.FAILED.value,
        "reason": judged.finding.reason.value,
        "message": judged.finding.message,
    }
    return [{key: value for key, value in made.items() if value not in (None, "")}]


def _phase(view: View, goal: Goal) -> str:
    if view.decision and view.decision.phase is Phase.FAILED and view.decision.wanted.name == goal.revision.name:
        return "Failed"
    if not view.replicas:
        return "ScaledToZero"
    carries = view.selected in {None, goal.name} and not isinstance(goal, Guest)
    if goal.ready:
        return "Serving" if carries else "Ready"
    return "Starting" if goal.replicas else "Stopped"


def _weight(view: View, goal: Goal) -> int:
    """Per cent of the requests: a Service spreads them over its ready pods."""
    if isinstance(goal, Guest):
        return 0
    if view.selected:
        return 100 if view.selected == goal.name else 0
    ready = sum(g.ready for g in view.goals)
    if not ready:
        return 100 if goal is view.goals[0] else 0
    return round(100 * goal.ready / ready)


def _rollout(view: View) -> dict[str, Any]:
    if view.decision is None:
        return {}
    placement = view.decision.wanted.memory.placement
    made = {"revision": view.decision.wanted.name, "phase": view.decision.phase.value}
    if placement:
        made |= {"strategy": placement.chosen.value, "reason": placement.why}
    return made
