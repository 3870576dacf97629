"""The way back: pods of a revision that was given up or is not wanted any more go on serving until others can.

In the middle of a Replace the new pods may be the only ones that serve. When the rollout fails then, or the spec goes
back or on to a third revision, what serves follows the same steps as forwards, with the roles swapped: pods that do
not serve go first, those that do only as their successors become ready. The Service selects everyone meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from modelpier_operator.api.v1alpha1 import Strategy
from modelpier_operator.decide import replacing, rollout
from modelpier_operator.decide.podset import PodSet
from modelpier_operator.decide.revision import Revision
from modelpier_operator.decide.rollout import Decision, Phase, Situation

_ENDED = frozenset({Phase.COMPLETE, Phase.FAILED})


def decide(s: Situation) -> Decision:
    """As the rollout goes on, but nothing that still has to serve leaves with it."""
    decision = rollout.decide(s)
    others = _others(s, decision)
    if not s.replicas or not others or _enough(s, decision):
        return decision
    home = decision.stable or decision.wanted
    left = rollout.capacity_left(s, _home(s, decision))
    if left == 0.0:  # What holds on is what takes the room: better a gap than no way back at all.
        return decision
    return _holding(s, decision, home, others, left)


def enough(replicas: int) -> int:
    """Ready pods that may do for a while: a Replace goes on with one less than asked for."""
    return max(1, replicas - 1)


def _holding(s: Situation, decision: Decision, home: Revision, others: list[Revision], left: float | None) -> Decision:
    own, held = _sizes(s, home, _home(s, decision), others)
    sizes = {**decision.replicas, home.name: own}
    for revision in others:
        sizes[revision.name] = min(held, len(_live(s, revision).ready))
        held -= sizes[revision.name]
    beside = s.facts.pods_beside(_home(s, decision).name)
    wake = rollout.soonest(decision.wake_after, left, *(p.overdue_in(s.now) for p in beside))
    unnamed = tuple(r for r in others if r.name not in {home.name, decision.wanted.name})
    return replace(decision, replicas=sizes, leaving=unnamed, everyone=True, wake_after=wake)


def _sizes(s: Situation, home: Revision, live: PodSet, others: Iterable[Revision]) -> tuple[int, int]:
    """(pods of `home`, pods of all others) to ask for."""
    if not any(r.memory.placement and r.memory.placement.chosen is Strategy.REPLACE for r in others):
        return s.replicas, s.replicas  # there is room for both
    cost = max(rollout.cost(r, home) for r in others)
    beside = sum(p.holds_resources(s.now) for p in s.facts.pods_beside(live.name))
    asked = sum(set_.replicas for set_ in s.facts.pod_sets if set_.name != live.name)
    hold = replacing.Hold(
        replicas=s.replicas,
        budget=s.replicas * cost,  # in pods of the others: the room is that of `home`
        old=max(beside, asked),
        new=sum(bool(p.node) for p in live.active),
        proved=len(live.ready),
        cost=cost,
    )
    held, own = replacing.sizes(hold)
    return own, held


def _others(s: Situation, decision: Decision) -> list[Revision]:
    """Revisions that would leave with this decision although pods of theirs serve, the newest first."""
    home = decision.stable or decision.wanted
    going = [r for r in s.facts.revisions if r.name != home.name and _leaves(decision, r)]
    staying = _home(s, decision).name  # the very pods that served the revision before, after a Swap
    return [r for r in reversed(going) if _live(s, r).ready and _live(s, r).name != staying]


def _leaves(decision: Decision, revision: Revision) -> bool:
    return decision.phase in _ENDED or revision.name not in decision.replicas


def _enough(s: Situation, decision: Decision) -> bool:
    """Whether what stays serves by itself."""
    staying = [r for r in s.facts.revisions if decision.replicas.get(r.name)]
    sets = {found.name: found for r in staying if (found := rollout.live(s.facts, r, decision.stable))}
    return sum(len(found.ready) for found in sets.values()) >= enough(s.replicas)


def _home(s: Situation, decision: Decision) -> PodSet:
    return rollout.live(s.facts, decision.stable or decision.wanted, decision.stable) or PodSet("")


def _live(s: Situation, revision: Revision) -> PodSet:
    return s.facts.serving(revision.name) or PodSet("")
