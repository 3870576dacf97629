"""The one sentence about a ModelDeployment: does it serve as asked, and if not, what is the root cause.

`status` spells it out as conditions. The order of the judges is the order of what people should hear first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from modelpier_operator.api.conditions import Reason
from modelpier_operator.decide import diagnose, goals, rollout
from modelpier_operator.decide.diagnose import Finding
from modelpier_operator.decide.facts import Manifest, Observed
from modelpier_operator.decide.gather import Facts
from modelpier_operator.decide.goals import Goal, Guest
from modelpier_operator.decide.podset import Pod
from modelpier_operator.decide.rollout import Decision, Phase


@dataclass(frozen=True)
class View:
    """All that status speaks of."""

    observed: Observed
    facts: Facts
    now: datetime
    decision: Decision | None = None
    """None: nothing could be followed, and nothing is there."""
    goals: tuple[Goal, ...] = ()
    selected: str | None = None
    """The pod set behind the Service; None: all pods."""
    replicas: int = 0
    refusal: Finding | None = None

    def goal(self, revision: str) -> Goal | None:
        return next((g for g in self.shown if g.revision.name == revision), None)

    @property
    def shown(self) -> tuple[Goal, ...]:
        """With candidates, as if they had pods of their own."""
        return (*self.goals, *goals.guests(self.goals))

    @property
    def newest(self) -> Goal | None:
        """The pod set of the newest spec."""
        return self.goal(self.decision.wanted.name) if self.decision else None

    @property
    def production(self) -> tuple[Pod, ...]:
        """Pods that take production weight, or would if they were ready."""
        return tuple(p for g in self.goals if self.selected in {None, g.name} for p in g.live.active)

    @property
    def serving(self) -> int:
        return sum(p.ready for p in self.production)


@dataclass(frozen=True)
class Verdict:
    finding: Finding
    full: bool = False
    """The newest spec serves at full strength, or is at zero as asked."""
    stalled: bool = False
    """Only a change of the spec helps."""


def verdict(view: View) -> Verdict:
    answers = (judge(view) for judge in JUDGES)
    return next(answer for answer in answers if answer)


def _refused(view: View) -> Verdict | None:
    return Verdict(view.refusal, stalled=True) if view.refusal else None


def _unwritten(view: View) -> Verdict | None:
    found = diagnose.problem(view.observed.problems)
    return Verdict(found) if found else None


def _given_up(view: View) -> Verdict | None:
    failure = view.decision.wanted.memory.failure if view.decision else None
    if not failure or not view.decision or view.decision.phase is not Phase.FAILED:
        return None
    return Verdict(
        Finding(failure.reason, f"{view.decision.wanted.name} was given up. {failure.message}"), stalled=True
    )


def _asleep(view: View) -> Verdict | None:
    return None if view.replicas else Verdict(Finding(Reason.SCALED_TO_ZERO, Reason.SCALED_TO_ZERO.cause), full=True)


def _serves(view: View) -> Verdict | None:
    newest, decision = view.newest, view.decision
    if not newest or not decision or not decision.stable or decision.stable.name != decision.wanted.name:
        return None
    if newest.ready < view.replicas:
        return None
    return Verdict(Finding(Reason.SERVING, f"{view.replicas} of {view.replicas} pods serve."), full=True)


def _on_the_way(view: View) -> Verdict | None:
    newest = view.newest
    if newest is None or view.decision is None:
        return Verdict(Finding(Reason.CREATING, Reason.CREATING.cause))
    found = _pods(view, newest)
    overdue = view.decision.phase is Phase.FIRST and view.decision.wake_after is None
    stalled = found.reason.permanent and (overdue or rollout.doomed(newest.live.pods, found))
    if isinstance(newest, Guest) and not found.reason.failure:
        return Verdict(Finding(Reason.ROLLING_OUT, f"{newest.ready} of {view.replicas} pods hold the new revision."))
    if view.decision.phase in {Phase.SURGING, Phase.REPLACING} and not found.reason.failure:
        return Verdict(Finding(Reason.ROLLING_OUT, f"{newest.ready} of {view.replicas} new pods are ready."))
    if view.serving and not found.reason.failure and len(newest.live.active) != view.replicas:
        return Verdict(Finding(Reason.SCALING, f"{newest.ready} of {view.replicas} pods are ready."))
    return Verdict(found, stalled=stalled)


def _pods(view: View, newest: Goal) -> Finding:
    """An object about pods that cannot be made speaks before the pods that could."""
    missing = len(newest.live.active) < view.replicas
    owned = (rs for rs in view.observed.replica_sets if _of(rs, newest.name))
    refused = diagnose.workload(newest.live.deployment, owned) if missing else None
    beside = newest.beside if isinstance(newest, Guest) else ""
    return refused or diagnose.worst(newest.live.pods, newest.revision.name, beside=beside)


def _of(replica_set: Manifest, pod_set: str) -> bool:
    references = replica_set["metadata"].get("ownerReferences") or ()
    return any(r.get("kind") == "Deployment" and r.get("name") == pod_set for r in references)


JUDGES: tuple[Callable[[View], Verdict | None], ...] = (
    _refused,
    _given_up,
    _unwritten,
    _asleep,
    _serves,
    _on_the_way,
)
