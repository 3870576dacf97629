"""How one revision follows another: an ordered list of small judges; the first that has an answer decides.

The order is the documentation: nothing rolls at zero replicas; a first revision joins at once; a revision in place is
kept; one that was given up stays given up; then it is proved, given up, replaced, swapped or surged.
docs/explanation/rollouts.md tells it with pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from modelpier_operator.api.conditions import Reason
from modelpier_operator.api.v1alpha1 import Rollout, Strategy
from modelpier_operator.decide import clock, diagnose, intent, placement, replacing
from modelpier_operator.decide.diagnose import Finding
from modelpier_operator.decide.facts import Capacity
from modelpier_operator.decide.gather import Facts
from modelpier_operator.decide.memory import Failure, Placement
from modelpier_operator.decide.podset import Pod, PodSet
from modelpier_operator.decide.revision import Revision

HOPELESS_RESTARTS = 2
"""Three failures for a reason that repeats itself: the deadline would only prolong the gap of a Replace."""


class Phase(StrEnum):
    """Shown in status.rollout.phase."""

    ASLEEP = "ScaledToZero"
    FIRST = "First"
    COMPLETE = "Complete"
    SURGING = "Surging"
    SWAPPING = "Swapping"
    REPLACING = "Replacing"
    FAILED = "Failed"


@dataclass(frozen=True)
class Situation:
    facts: Facts
    stable: Revision | None
    wanted: Revision
    replicas: int
    rollout: Rollout
    asked: Mapping[str, Any]
    """The spec that asks for `wanted`."""
    capacity: Capacity | None
    now: datetime

    @property
    def attempt(self) -> str:
        return intent.attempt(self.asked)

    @property
    def new(self) -> PodSet:
        return self.facts.serving(self.wanted.name) or PodSet("")

    @property
    def old(self) -> PodSet:
        return (self.facts.serving(self.stable.name) if self.stable else None) or PodSet("")

    @property
    def swapping(self) -> bool:
        """The old pods are to take the wanted revision as well."""
        chosen = self.wanted.memory.placement
        return bool(self.stable and chosen and chosen.chosen is Strategy.SWAP)

    @property
    def pods(self) -> tuple[Pod, ...]:
        """Those that have the wanted revision, or are to have it."""
        return self.old.pods if self.swapping else self.new.pods

    @property
    def worst(self) -> Finding:
        """What keeps the wanted revision from being proved: first of all, what says so of itself."""
        beside = self.stable.name if self.stable and self.swapping else ""
        return diagnose.worst(self.turned_down or self.pods, self.wanted.name, beside=beside)

    @property
    def turned_down(self) -> tuple[Pod, ...]:
        """Pods that will not have the wanted revision beside the old one."""
        return tuple(p for p in self.pods if self.swapping and diagnose.turned_down(p, self.wanted.name))

    @property
    def proved(self) -> int:
        """Pods that could serve the wanted revision now. Nothing is promoted whose place is not known to the cluster:
        what follows a promotion finds the pods by it.
        """
        if not self.swapping:
            return len(self.new.ready)
        if self.old.candidate != self.wanted.name or not self.stable:
            return 0
        return len(proved_in(self.old, self.wanted.name, self.stable.name))


@dataclass(frozen=True)
class Decision:
    phase: Phase
    stable: Revision | None
    wanted: Revision
    replicas: Mapping[str, int]
    """By revision name: the pod sets that must exist, and their sizes."""
    everyone: bool = False
    """The Service selects all pods of the ModelDeployment, not one set."""
    candidates: Mapping[str, Revision] = field(default_factory=dict)
    """By revision name: what the pods of its set are to hold beside it."""
    wake_after: float | None = None
    leaving: tuple[Revision, ...] = ()
    """Others whose pods have to go on serving for a while; their sizes stand in `replicas` as well."""


def decide(situation: Situation) -> Decision:
    answers = (judge(situation) for judge in JUDGES)
    return next(answer for answer in answers if answer)


def asleep(s: Situation) -> Decision | None:
    """At zero replicas nothing can be proved: the rollout begins with the first replica, its clock too."""
    if s.replicas:
        return None
    wanted = s.wanted if s.wanted == s.stable else s.wanted.remembering(started=None)
    kept = s.stable or s.wanted
    return Decision(Phase.ASLEEP, s.stable and kept, wanted, {kept.name: 0})


def first(s: Situation) -> Decision | None:
    """There is nothing to fall back to: its pods join at once, and nobody gives it up."""
    if s.stable:
        return None
    wanted, goals = _started(s), {s.wanted.name: s.replicas}
    if s.new.ready:
        wanted = wanted.remembering(promoted=clock.stamp(s.now))
        return Decision(Phase.COMPLETE, wanted, wanted, goals)
    return Decision(Phase.FIRST, None, wanted, goals, wake_after=_left(s, wanted))


def settled(s: Situation) -> Decision | None:
    """The wanted revision carries production already."""
    if not s.stable or s.stable.name != s.wanted.name:
        return None
    return Decision(Phase.COMPLETE, s.wanted, s.wanted.remembering(failure=None), {s.wanted.name: s.replicas})


def given_up(s: Situation) -> Decision | None:
    """Only another spec is another try; the old revision serves at full strength."""
    if not (s.stable and s.wanted.memory.failure and s.wanted.memory.failure.spec == s.attempt):
        return None
    return _fallen_back(s, s.stable, s.wanted)


def proved(s: Situation) -> Decision | None:
    """All its pods are ready: it takes the production weight; the old pods leave once that has spread."""
    if s.proved < s.replicas or not s.wanted.memory.started:
        return None
    after = clock.parse(s.stable.memory.promoted) if s.stable else None
    # Another operator's clock may have been ahead: the order of promotions must not depend on it.
    moment = max(s.now, after + timedelta(microseconds=1)) if after else s.now
    wanted = s.wanted.remembering(promoted=clock.stamp(moment), failure=None)
    return Decision(Phase.COMPLETE, wanted, wanted, {wanted.name: s.replicas})


def hopeless(s: Situation) -> Decision | None:
    """No progress for too long, or the same failure again and again."""
    if not (s.stable and s.wanted.memory.started) or s.wanted.memory.failure:
        return None
    finding = s.worst
    if _too_large(s, finding):
        return None
    if finding.reason in REPEATING and s.turned_down:
        return _give_up(s, s.stable, finding)
    if not s.swapping and doomed(s.pods, finding):
        return _give_up(s, s.stable, finding)
    if _left(s, s.wanted) is None:
        return _give_up(s, s.stable, finding)
    return None


def moving(s: Situation) -> Decision | None:
    """Surge, Swap or Replace, as the planner chose; Auto changes its mind when there is no room after all."""
    if not s.stable:
        raise AssertionError("a first revision is decided before")
    wanted = _placed(s, _started(s))
    chosen = wanted.memory.placement
    left = _left(s, wanted)
    if chosen and chosen.chosen is Strategy.REPLACE:
        # Whether the new Deployment is taken at all is known before the first old pod goes.
        old, new = replacing.sizes(_replacing(s, s.stable, chosen)) if s.new.deployment else (s.old.replicas, 0)
        wake = soonest(left, *(p.overdue_in(s.now) for p in s.facts.pods_beside(s.new.name)))
        goals = {s.stable.name: old, wanted.name: new}
        return Decision(Phase.REPLACING, s.stable, wanted, goals, everyone=True, wake_after=wake)
    if chosen and chosen.chosen is Strategy.SWAP:
        goals, held = {s.stable.name: s.replicas}, {s.stable.name: wanted}
        return Decision(Phase.SWAPPING, s.stable, wanted, goals, candidates=held, wake_after=left)
    goals = {s.stable.name: s.replicas, wanted.name: s.replicas}
    return Decision(Phase.SURGING, s.stable, wanted, goals, wake_after=soonest(left, capacity_left(s, s.new)))


JUDGES: tuple[Callable[[Situation], Decision | None], ...] = (
    asleep,
    first,
    settled,
    given_up,
    proved,
    hopeless,
    moving,
)


def live(facts: Facts, revision: Revision, stable: Revision | None) -> PodSet | None:
    """Where the pods of a revision are: in its own set, or, once a Swap has promoted it, in that of another which has
    still to be told so.
    """
    own, host = facts.serving(revision.name), facts.host(revision.name)
    if host is None or stable is None or stable.name != revision.name:
        return own
    return own if own and len(own.ready) >= len(proved_in(host, revision.name, host.revision)) else host


def proved_in(pod_set: PodSet, candidate: str, stable: str) -> tuple[Pod, ...]:
    """Pods of the set of `stable` that could serve the candidate now: a plan is all that they wait for."""
    return tuple(p for p in pod_set.pods if diagnose.candidate(p, stable, candidate).reason is Reason.SERVING)


def doomed(pods: tuple[Pod, ...], finding: Finding) -> bool:
    """A failure that every retry repeats, seen often enough to be sure."""
    restarts = max((int(p.container().get("restartCount") or 0) for p in pods), default=0)
    seen = max(restarts, sum(p.ended for p in pods) - 1)
    return finding.reason in CERTAIN or (finding.reason in REPEATING and seen >= HOPELESS_RESTARTS)


CERTAIN = frozenset({Reason.IMAGE_INVALID})
REPEATING = frozenset(
    {
        Reason.DOWNLOAD_FORBIDDEN,
        Reason.MODEL_NOT_FOUND,
        Reason.DIGEST_MISMATCH,
        Reason.MODEL_INVALID,
        Reason.MODEL_CRASHED,
        Reason.GOLDEN_TEST_FAILED,
        Reason.PROVIDER_UNAVAILABLE,
        Reason.DISK_FULL,
        Reason.OUT_OF_MEMORY,
        Reason.PLAN_INVALID,
    }
)


def _started(s: Situation) -> Revision:
    """Its clock runs, from now if it did not."""
    if s.wanted.memory.failure:  # of another spec: another try
        return s.wanted.remembering(started=clock.stamp(s.now), failure=None, placement=None)
    return s.wanted if s.wanted.memory.started else s.wanted.remembering(started=clock.stamp(s.now))


def _placed(s: Situation, wanted: Revision) -> Revision:
    known, need = wanted.memory.placement, placement.need(wanted.spec, wanted.template)
    if known is None or known.asked is not s.rollout.strategy:
        asked = s.rollout.strategy
        choice = placement.choose(asked, need, s.replicas, s.capacity, _hindrance(s))
        return wanted.remembering(placement=choice)
    if known.chosen is Strategy.SURGE and known.asked is Strategy.AUTO and capacity_left(s, s.new) == 0.0:
        short = f"New pods beside the old ones lacked {_lacking(s)} for {s.rollout.capacity_wait_seconds} s"
        return wanted.remembering(placement=placement.without_room(known.asked, short, _hindrance(s)))
    if known.chosen is Strategy.SWAP and (why := _no_swap(s)):
        return wanted.remembering(placement=Placement(known.asked, Strategy.REPLACE, f"The Swap ended: {why}."))
    return wanted


def _hindrance(s: Situation) -> str | None:
    """What keeps the old pods from taking the wanted revision as well."""
    old = s.stable.template if s.stable else {}
    return placement.hindrance(old, s.wanted.template, running=any(p.running for p in s.old.pods))


def _no_swap(s: Situation) -> str | None:
    """Why a Swap that was begun cannot go on. Pods that are started again in the middle of it do not end it."""
    assert s.stable
    if s.stable.template != s.wanted.template:
        return placement.hindrance(s.stable.template, s.wanted.template, running=True)
    finding = s.worst
    return f"both revisions do not fit into a pod. {finding.message}" if _too_large(s, finding) else None


def _too_large(s: Situation, finding: Finding) -> bool:
    """Auto makes room for what does not fit beside the old revision."""
    return bool(s.turned_down) and s.rollout.strategy is Strategy.AUTO and finding.reason in _LACK


_LACK = frozenset({Reason.OUT_OF_MEMORY, Reason.DISK_FULL})


def _lacking(s: Situation) -> str:
    """What the new pods wait for, in the scheduler's words."""
    named = {name for p in s.new.active if diagnose.waits_for_room_since(p) for name in diagnose.lacks(p)}
    quota = {"quota"} if diagnose.waits_for_quota_since(s.new.deployment) else set()
    return " or ".join(sorted(named | quota))


def _replacing(s: Situation, stable: Revision, chosen: Placement) -> replacing.Hold:
    """What the two sets hold now, in pods."""
    beside = s.facts.pods_beside(s.new.name)
    held = sum(p.holds_resources(s.now) for p in beside)
    return replacing.Hold(
        replicas=s.replicas,
        budget=s.replicas + _spare(s, stable, chosen),
        old=max(held, s.old.replicas),
        new=sum(bool(p.node) for p in s.new.active),
        proved=s.proved,
        cost=cost(stable, s.wanted),
    )


def _spare(s: Situation, stable: Revision, chosen: Placement) -> int:
    """Pods beyond `replicas` for which there is room while both revisions run: none unless Auto may look for it."""
    new = placement.need(s.wanted.spec, s.wanted.template)
    old = placement.need(stable.spec, stable.template)
    alike = (new.resource, new.count) == (old.resource, old.count)
    if chosen.asked is not Strategy.AUTO or s.capacity is None or not new.count or not alike:
        return 0
    ours = (*s.new.pods, *s.facts.pods_beside(s.new.name))
    room = placement.fits(new, s.capacity, ((s.facts.namespace, p.name) for p in ours))
    return max(0, min(room, 2 * s.replicas) - s.replicas)


def cost(stable: Revision, wanted: Revision) -> int:
    """Old pods that must go for one new pod to find its GPUs."""
    old, new = stable.spec.resources, wanted.spec.resources
    if not old.gpu or old.gpu_resource != new.gpu_resource:
        return 1
    return max(1, -(-new.gpu // old.gpu))


def _give_up(s: Situation, stable: Revision, finding: Finding) -> Decision:
    reason = finding.reason if finding.reason.failure else Reason.DEADLINE_EXCEEDED
    fallback = f"No new pod became ready for {s.rollout.progress_deadline_seconds} s: {finding.message}"
    message = finding.message if reason is finding.reason else fallback
    failed = s.wanted.remembering(failure=Failure(reason, message, s.attempt), started=None)
    return _fallen_back(s, stable, failed)


def _fallen_back(s: Situation, stable: Revision, failed: Revision) -> Decision:
    sizes = {stable.name: s.replicas}
    if s.new.deployment:  # One that the API server refuses is not asked for again.
        sizes[failed.name] = 0
    return Decision(Phase.FAILED, stable, failed, sizes)


def _left(s: Situation, wanted: Revision) -> float | None:
    """Seconds until the rollout is given up for want of progress; None: that time is over."""
    progress = clock.later(wanted.memory.started, *(_became_ready(p) for p in s.new.pods))
    left = s.rollout.progress_deadline_seconds - clock.elapsed(progress, s.now)
    return left if left > 0 else None


def _became_ready(pod: Pod) -> str | None:
    return pod.condition("Ready").get("lastTransitionTime") if pod.ready else None


def capacity_left(s: Situation, pod_set: PodSet) -> float | None:
    """Seconds until a set has waited long enough for room; 0: it has; None: no pod of it waits for any."""
    since = [diagnose.waits_for_room_since(p) for p in pod_set.active]
    since.append(diagnose.waits_for_quota_since(pod_set.deployment))
    waits = [clock.elapsed(moment, s.now) for moment in since if moment]
    return max(0.0, s.rollout.capacity_wait_seconds - max(waits)) if waits else None


def soonest(*times: float | None) -> float | None:
    return min((t for t in times if t), default=None)
