"""The pod sets that must exist after this pass, and what becomes of the others."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from modelpier_operator import names
from modelpier_operator.decide import address, clock, retreat, rollout
from modelpier_operator.decide.gather import Facts
from modelpier_operator.decide.podset import PodSet
from modelpier_operator.decide.revision import Revision
from modelpier_operator.decide.rollout import Decision
from modelpier_server.contract import DRAIN_ACCEPT_SECONDS


@dataclass(frozen=True)
class Goal:
    name: str
    hash: str
    revision: Revision
    replicas: int
    live: PodSet
    candidate: Revision | None = None
    """What its pods are to hold beside the revision."""

    @property
    def ready(self) -> int:
        return len(self.live.ready)


@dataclass(frozen=True)
class Guest(Goal):
    """A candidate, seen as if the pods were its own."""

    beside: str = ""
    """Name of the revision that they serve."""

    @property
    def ready(self) -> int:
        return len(rollout.proved_in(self.live, self.revision.name, self.beside))


def goals(facts: Facts, decision: Decision) -> tuple[Goal, ...]:
    """Sets that shrink or stay come before the newest one: in a Replace they make the room."""
    revisions = [r for r in (*decision.leaving, decision.stable, decision.wanted) if r]
    unique = {r.name: r for r in revisions}
    return tuple(_goal(facts, r, decision) for r in unique.values() if r.name in decision.replicas)


def _goal(facts: Facts, revision: Revision, decision: Decision) -> Goal:
    template_hash, replicas = names.digest(revision.template), decision.replicas[revision.name]
    candidate = decision.candidates.get(revision.name)
    if live := rollout.live(facts, revision, decision.stable):
        # A Deployment that somebody deleted leaves a set whose plan alone is there: the hash is in no plan.
        return Goal(live.name, live.hash or template_hash, revision, replicas, live, candidate)
    # The revision's number only grows, so a name is never used twice: pods of a deleted set may still be draining.
    name = names.pod_set_name(facts.name, template_hash, revision.number)
    return Goal(name, template_hash, revision, replicas, PodSet(name), candidate)


def guests(wanted_sets: tuple[Goal, ...]) -> tuple[Guest, ...]:
    return tuple(
        Guest(g.name, g.hash, g.candidate, g.replicas, g.live, beside=g.revision.name)
        for g in wanted_sets
        if g.candidate
    )


def selected(decision: Decision, wanted_sets: tuple[Goal, ...], orphans: tuple[PodSet, ...] = ()) -> str | None:
    """The pod set that the Service selects; None: every pod of the ModelDeployment.

    Never a set without a ready pod while another has one, whatever else is true: an answer from a revision that is not
    promoted yet is better than none.
    """
    primary = decision.stable or decision.wanted
    chosen = next((g for g in wanted_sets if g.revision.name == primary.name), None)
    if decision.everyone or chosen is None:
        return None
    if not chosen.ready and (orphans or any(g.ready for g in wanted_sets)):
        return None
    return chosen.name


def orphans(facts: Facts, wanted_sets: tuple[Goal, ...], replicas: int) -> tuple[PodSet, ...]:
    """Sets that serve although nobody knows their revision any more (somebody deleted its ControllerRevision): they
    stay as they are until others serve.
    """
    if not replicas or sum(g.ready for g in wanted_sets) >= retreat.enough(replicas):
        return ()
    known = {r.name for r in facts.revisions}
    return tuple(s for s in retired(facts, wanted_sets) if s.ready and s.revision not in known)


def selected_since(facts: Facts, pod_set: str | None, now: datetime) -> str:
    """When the Service was given the selector that it shall have: now, unless it is seen to have it."""
    since = _since(facts, pod_set)
    return since if since and clock.parse(since) else clock.stamp(now)


def drain_left(facts: Facts, pod_set: str | None, now: datetime) -> float:
    """Seconds until sets beside the selected one may go: endpoints take time to propagate, once the Service is seen to
    leave them out. A time far in the future is that of another machine's clock: nobody waits for that.
    """
    if pod_set is None:
        return 0.0
    moment = clock.parse(_since(facts, pod_set))
    left = (moment - now).total_seconds() + DRAIN_ACCEPT_SECONDS if moment else DRAIN_ACCEPT_SECONDS
    return left if 0 < left <= 2 * DRAIN_ACCEPT_SECONDS else 0.0


def _since(facts: Facts, pod_set: str | None) -> str | None:
    """None while the live Service selects anything else."""
    live = facts.owned.get(("Service", address.service_name(facts.md))) or {}
    if (live.get("spec") or {}).get("selector") != address.selector(facts.md, pod_set):
        return None
    found: str | None = (live["metadata"].get("annotations") or {}).get(names.ANNOTATION_SELECTED)
    return found


def retired(facts: Facts, wanted_sets: tuple[Goal, ...]) -> tuple[PodSet, ...]:
    """Live sets that nothing needs any more."""
    needed = {g.name for g in wanted_sets}
    return tuple(s for s in facts.pod_sets if s.name not in needed)
