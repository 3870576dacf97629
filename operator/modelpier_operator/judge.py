"""One pass, pure: what was observed in, everything that is wanted out. `reconcile` calls it and carries it out.

gather -> which revision is wanted -> how the rollout goes on -> manifests -> status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from modelpier_operator import names
from modelpier_operator.api import validation
from modelpier_operator.api.access import Access
from modelpier_operator.api.conditions import Reason
from modelpier_operator.api.v1alpha1 import ModelDeploymentSpec, Rollout, RuntimeUpgrade
from modelpier_operator.decide import clock, gather, goals, intent, plan, retreat, revision
from modelpier_operator.decide.diagnose import Finding
from modelpier_operator.decide.facts import Manifest, Observed, Outcome, Ref
from modelpier_operator.decide.gather import Facts
from modelpier_operator.decide.goals import Goal
from modelpier_operator.decide.intent import Intent
from modelpier_operator.decide.memory import Memory
from modelpier_operator.decide.revision import Revision
from modelpier_operator.decide.rollout import Decision, Situation
from modelpier_operator.decide.verdict import View
from modelpier_operator.desired import network, pod
from modelpier_operator.desired.children import Wish, children
from modelpier_operator.settings import PlanKeys, Settings
from modelpier_operator.status import status
from modelpier_operator.tidings import tidings


@dataclass(frozen=True)
class Ask:
    """What the spec asks for, as far as it can be followed."""

    wanted: Revision
    revisions: tuple[Revision, ...]
    """All, with `wanted` among them."""
    replicas: int
    rollout: Rollout
    callers: tuple[network.Rule, ...]
    refusal: Finding | None = None


def judge(observed: Observed, settings: Settings, keys: PlanKeys, now: datetime) -> Outcome:
    """Equal arguments give equal outcomes; an outcome that was carried out asks for nothing more."""
    facts = gather.gather(observed)
    if observed.md["metadata"].get("deletionTimestamp"):
        return Outcome((), (), observed.md.get("status") or {})  # the garbage collector does the rest
    asked = _ask(facts, settings, keys)
    if isinstance(asked, Finding):
        refused = View(observed, facts, now, refusal=asked)
        told = status(refused, settings)
        return Outcome((), (), told, tidings(refused, told))
    return _carry_out(observed, asked, _situation(observed, facts, asked, now), settings, keys)


# ------------------------------------------------------------------------------------------------ what is wanted
def _ask(facts: Facts, settings: Settings, keys: PlanKeys) -> Ask | Finding:
    """A Finding where nothing can be followed, and nothing is there that could be kept."""
    try:
        taken = intent.of(facts.md["spec"])
    except ValidationError as error:
        return _kept(facts, Finding(Reason.SPEC_INVALID, str(validation.from_error(error)[0])))
    asked, stable, earlier = taken.spec, revision.stable(facts.revisions), None
    if name := asked.rollout.rollback_to:
        earlier = next((r for r in facts.revisions if r.name == name), None)
        if earlier is None:
            return _kept(facts, _unknown(facts, name))
        taken = Intent(earlier.spec, earlier.hash, earlier.snapshot)
    again = _again(facts, taken, earlier, settings, keys)
    # What serves already is not judged again, where no new pods are made of it: a check of a later version must not
    # undo it.
    if not (again and stable and stable.hash == taken.hash) and (refusal := _refusal(facts, taken.spec, settings)):
        return _kept(facts, refusal)
    wanted = again or _made(facts, taken, earlier, settings, keys)
    others = tuple(_pinned(facts, r) for r in facts.revisions if r.name != wanted.name)
    return Ask(wanted, (*others, wanted), asked.replicas, asked.rollout, network.opened(asked.access))


def _unknown(facts: Facts, name: str) -> Finding:
    known = ", ".join(r.name for r in facts.revisions) or "none"
    return Finding(Reason.SPEC_INVALID, f"rollout.rollbackTo: there is no revision {name}; there are: {known}")


def _again(
    facts: Facts, taken: Intent, earlier: Revision | None, settings: Settings, keys: PlanKeys
) -> Revision | None:
    """The newest revision of this intent that may go on; the `earlier` one alone, where that is asked for."""
    highest = max((r.number for r in facts.revisions), default=0)
    if earlier is None and taken.spec.server.runtime_upgrade is RuntimeUpgrade.AUTO:
        current = pod.image(taken.spec, settings), keys.public
        usable = revision.newest(r for r in _same(facts, taken) if (r.image, r.plan_key) == current)
    else:
        usable = _usable(facts, _known(facts, taken, earlier), keys)
    if earlier and not usable:  # its successor, which was made for that reason
        usable = revision.newest(r for r in _same(facts, taken) if r.plan_key == keys.public)
    return revision.wanted_again(usable, highest) if usable else None


def _same(facts: Facts, taken: Intent) -> tuple[Revision, ...]:
    return tuple(_pinned(facts, r) for r in facts.revisions if r.hash == taken.hash)


def _known(facts: Facts, taken: Intent, earlier: Revision | None) -> Revision | None:
    return _pinned(facts, earlier) if earlier else revision.newest(_same(facts, taken))


def _made(facts: Facts, taken: Intent, earlier: Revision | None, settings: Settings, keys: PlanKeys) -> Revision:
    """A new revision, with the pods that would be made now."""
    highest = max((r.number for r in facts.revisions), default=0)
    known = _known(facts, taken, earlier)
    template = _template(facts, known, taken.spec, settings, keys)
    made = Revision(
        name=names.revision_name(facts.name, names.digest([taken.hash, template]) if known else taken.hash),
        number=highest + 1,
        hash=taken.hash,
        snapshot=taken.snapshot,
        spec=taken.spec,
        template=template,
        # Another runtime of the same model: it must serve the same bytes.
        memory=Memory(digest=known.memory.digest if known else None),
    )
    return _pinned(facts, made)  # somebody may have deleted it while its pods went on serving


def _usable(facts: Facts, known: Revision | None, keys: PlanKeys) -> Revision | None:
    """What follows no upgrade goes on, unless nothing is left that its servers would trust."""
    if known is None or known.plan_key == keys.public:
        return known
    failure = known.memory.failure
    given_up = failure is not None and failure.spec == intent.attempt(facts.md["spec"])
    # Its servers trust a key of another time (docs/adr/0006).
    last = plan.kept(known, facts.serving(known.name), (facts.uid, facts.name))
    return known if given_up or last else None


def _template(
    facts: Facts, known: Revision | None, spec: ModelDeploymentSpec, settings: Settings, keys: PlanKeys
) -> Mapping[str, Any]:
    if known is None or spec.server.runtime_upgrade is RuntimeUpgrade.AUTO:
        return pod.template(facts.md, spec, settings, keys)
    return pod.trusting(known.template, keys)


def _pinned(facts: Facts, known: Revision) -> Revision:
    if known.spec.model.digest:
        return known
    live = facts.serving(known.name) or facts.host(known.name)
    told = plan.live_digest(known, live, (facts.uid, facts.name))
    return known.remembering(digest=told or known.memory.digest or plan.first_digest(known, live))


def _kept(facts: Facts, refusal: Finding) -> Ask | Finding:
    """The spec cannot be followed: what serves goes on serving."""
    kept = revision.stable(facts.revisions) or revision.newest(facts.revisions)
    replicas = facts.md["spec"].get("replicas")
    if kept is None:
        return refusal
    live = facts.serving(kept.name)
    wanted = live.replicas if live and not isinstance(replicas, int) else int(replicas or 0)
    rollout, callers = Rollout(revision_history_limit=100), _callers(facts)
    return Ask(_pinned(facts, kept), facts.revisions, wanted, rollout, callers, refusal)


def _callers(facts: Facts) -> tuple[network.Rule, ...]:
    """Of a spec that cannot be followed as a whole. Who is let in must not change by a mistake: neither is the door
    opened to everybody, nor closed to those who came through it.
    """
    try:
        return network.opened(Access.model_validate(facts.md["spec"].get("access") or {}))
    except ValidationError:
        return network.admitted(facts.owned.get(("NetworkPolicy", network.name(facts.md))))


def _refusal(facts: Facts, spec: ModelDeploymentSpec, settings: Settings) -> Finding | None:
    """Why no revision is made of a spec that the API server took."""
    if spec.resources.pod_template and not settings.allow_pod_overrides:
        return Finding(Reason.POD_OVERRIDES_FORBIDDEN, Reason.POD_OVERRIDES_FORBIDDEN.remedy)
    faults = validation.faults(facts.name, spec)
    return Finding(Reason.SPEC_INVALID, str(faults[0])) if faults else None


# ------------------------------------------------------------------------------------------------ what follows
def _situation(observed: Observed, facts: Facts, asked: Ask, now: datetime) -> Situation:
    return Situation(
        facts=facts,
        stable=revision.stable(asked.revisions) or _served_before(facts, asked, now),
        wanted=asked.wanted,
        replicas=asked.replicas,
        rollout=asked.rollout,
        asked=facts.md["spec"],
        capacity=observed.capacity,
        now=now,
    )


def _served_before(facts: Facts, asked: Ask, now: datetime) -> Revision | None:
    """The revision to fall back to when none was promoted: the operator was away while its pods became ready."""
    serving = [r for r in asked.revisions if (live := facts.serving(r.name)) and live.ready]
    if asked.wanted in serving or not (found := revision.newest(serving)):
        return None
    return found.remembering(promoted=clock.stamp(now))


def _carry_out(observed: Observed, asked: Ask, s: Situation, settings: Settings, keys: PlanKeys) -> Outcome:
    facts, decision = s.facts, retreat.decide(s)
    sets = goals.goals(facts, decision)
    identity = (facts.uid, facts.name)
    plans = {g.name: plan.signed(g.revision, g.live, identity, keys, s.now, candidate=g.candidate) for g in sets}
    orphans = goals.orphans(facts, sets, asked.replicas)
    selected = goals.selected(decision, sets, orphans)
    wish = Wish(
        md=facts.md,
        revisions=_history(asked, decision),
        goals=sets,
        plans=plans,
        selected=selected,
        selected_since=goals.selected_since(facts, selected, s.now),
        replicas=asked.replicas,
        progress_deadline=asked.rollout.progress_deadline_seconds,
        callers=asked.callers,
    )
    wanted = children(wish, settings)
    draining, wait = _draining(facts, sets, selected, s.now)
    view = View(observed, facts, s.now, decision, sets, selected, asked.replicas, asked.refusal)
    told = status(view, settings)
    return Outcome(
        children=wanted,
        delete=_surplus(facts, wanted, draining | {o.name for o in orphans}),
        status=told,
        tidings=tidings(view, told),
        pushes=tuple(push for g in sets for push in plan.pushes(g.live, plans[g.name])),
        follow=tuple(pod for g in sets for pod in plan.unsettled(g.live, plans[g.name], g.candidate)),
        requeue_after=min((t for t in (decision.wake_after, wait) if t), default=None),
        final=not facts.owned and not facts.pod_sets and not facts.stray,
    )


def _history(asked: Ask, decision: Decision) -> tuple[Revision, ...]:
    """What is remembered after this pass, in the order of numbers."""
    changed = {r.name: r for r in (*decision.leaving, decision.stable, decision.wanted) if r}
    named = {*changed, asked.rollout.rollback_to or ""}
    gone = {r.name for r in revision.forgotten(asked.revisions, named, asked.rollout.revision_history_limit)}
    kept = (changed.get(r.name, r) for r in asked.revisions if r.name not in gone)
    return tuple(sorted(kept, key=lambda r: r.number))


def _draining(
    facts: Facts, sets: tuple[Goal, ...], selected: str | None, now: datetime
) -> tuple[set[str], float | None]:
    """Pod sets that lost the production weight a moment ago and stay until that has spread, and for how long."""
    left = goals.drain_left(facts, selected, now)
    staying = {s.name for s in goals.retired(facts, sets) if s.active} if left else set()
    return staying, left if staying else None


def _surplus(facts: Facts, wanted: tuple[Manifest, ...], draining: set[str]) -> tuple[Ref, ...]:
    """Owned objects that must go, Deployments first: their pods drain while the rest is cleaned up."""
    needed = {(child["kind"], child["metadata"]["name"]) for child in wanted}
    surplus = [child for key, child in facts.owned.items() if key not in needed and not _stays(child, draining)]
    return tuple(
        gather.ref(c) for c in sorted(surplus, key=lambda c: (c["kind"] != "Deployment", c["metadata"]["name"]))
    )


def _stays(child: Manifest, draining: set[str]) -> bool:
    metadata = child["metadata"]
    return (
        bool(metadata.get("deletionTimestamp")) or (metadata.get("labels") or {}).get(names.LABEL_POD_SET) in draining
    )
