"""What is told as Events: the steps of a rollout, and why a ModelDeployment does not serve as asked. `judge` calls it.

An Event is due where the status is about to change: the status is written after the Events, so that a crash between
the two repeats them, and their names, made of what they tell, let the API server refuse the second one. None is due
for a creation that goes well: `kubectl get` shows it, and a cluster has thousands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelpier_operator import names
from modelpier_operator.api.conditions import ConditionType, Reason
from modelpier_operator.decide.facts import Manifest, Tiding
from modelpier_operator.decide.rollout import Decision, Phase
from modelpier_operator.decide.verdict import View

MESSAGE_LIMIT = 1024
"""Characters of an Event's message: https://github.com/kubernetes/kubernetes, pkg/apis/core/validation/events.go"""
NORMAL, WARNING = "Normal", "Warning"
STARTED, PROMOTED, FAILED, WITHDRAWN = "RolloutStarted", "Promoted", "RolloutFailed", "RolloutWithdrawn"
_MOVING = frozenset({Phase.SURGING, Phase.SWAPPING, Phase.REPLACING})
_MOVING_WORDS = frozenset(phase.value for phase in _MOVING)


def tidings(view: View, status: Manifest) -> tuple[Tiding, ...]:
    """`status`: what is about to be written."""
    before: Mapping[str, Any] = view.facts.md.get("status") or {}
    rollout = tuple(_rollout(view, view.decision, before.get("rollout") or {})) if view.decision else ()
    return (*rollout, *_trouble(view, before, status))


def _rollout(view: View, decision: Decision, before: Mapping[str, Any]) -> Iterator[Tiding]:
    wanted, memory = decision.wanted, decision.wanted.memory
    what, came_from = f"Revision {wanted.name} (version {wanted.version})", before.get("revision")
    was, placement = before.get("phase"), memory.placement
    if decision.phase in _MOVING and placement:
        if (came_from, before.get("strategy")) != (wanted.name, placement.chosen.value) or was not in _MOVING_WORDS:
            text = f"{what}: {placement.chosen.value}. {placement.why}"
            yield _tiding(view, NORMAL, STARTED, text, [wanted.name, memory.started, placement.chosen.value])
    elif decision.phase is Phase.COMPLETE and was in _MOVING_WORDS:
        if came_from == wanted.name:
            yield _tiding(view, NORMAL, PROMOTED, f"{what} serves.", [wanted.name, memory.promoted])
        else:
            text = f"{came_from} is not wanted any more; {what.lower()} serves on."
            yield _tiding(view, NORMAL, WITHDRAWN, text, [came_from, view.facts.generation])
    elif decision.phase is Phase.FAILED and memory.failure and (was, came_from) != (Phase.FAILED.value, wanted.name):
        text = f"{what} was given up: {memory.failure.reason.value}. {memory.failure.message}"
        yield _tiding(view, WARNING, FAILED, text, [wanted.name, memory.failure.spec])


def _trouble(view: View, before: Mapping[str, Any], status: Manifest) -> Iterator[Tiding]:
    """A reason that says what is wrong, each once for a spec. What ends a rollout is told by its end."""
    ready, past = _ready(status), _ready(before)
    told = ready.get("reason"), ready.get("message")
    if ready.get("status") != "False" or told == (past.get("reason"), past.get("message")):
        return
    if Reason(ready["reason"]).failure and not (view.decision and view.decision.phase is Phase.FAILED):
        yield _tiding(view, WARNING, ready["reason"], ready["message"], [view.facts.generation, *told])


def _ready(status: Mapping[str, Any]) -> Mapping[str, Any]:
    conditions = status.get("conditions") or ()
    return next((c for c in conditions if c.get("type") == ConditionType.READY.value), {})


def _tiding(view: View, kind: str, reason: str, message: str, about: list[Any]) -> Tiding:
    name = f"{view.facts.name}.{names.digest([view.facts.uid, reason, *about], 16)}"
    return Tiding(name, kind, reason, message[:MESSAGE_LIMIT])
