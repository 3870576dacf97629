"""All objects that must exist after a pass, complete, in the order in which they are written.

What others need comes first: memory before deeds (a revision before its pods), a plan before the pods that mount it,
Deployments last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelpier_operator.decide.facts import Manifest
from modelpier_operator.decide.goals import Goal
from modelpier_operator.decide.plan import SignedPlan
from modelpier_operator.decide.revision import Revision
from modelpier_operator.desired import disruption, network, plan, revision, service, serviceaccount, workload
from modelpier_operator.settings import Settings


@dataclass(frozen=True)
class Wish:
    md: Manifest
    revisions: tuple[Revision, ...]
    goals: tuple[Goal, ...]
    plans: Mapping[str, SignedPlan]
    """By pod set."""
    selected: str | None
    """The pod set behind the Service; None: all."""
    selected_since: str
    replicas: int
    progress_deadline: int
    callers: tuple[network.Rule, ...]
    """Rules of the NetworkPolicy."""


def children(wish: Wish, settings: Settings) -> tuple[dict[str, Any], ...]:
    md = wish.md
    return (
        *(serviceaccount.service_account(md) for _ in range(_needs_account(md, wish.goals))),
        network.network_policy(md, wish.callers, settings),
        *(revision.controller_revision(md, r) for r in wish.revisions),
        *(plan.plan_config_map(md, g, wish.plans[g.name]) for g in wish.goals),
        service.service(md, wish.selected, wish.selected_since),
        *(disruption.disruption_budget(md) for _ in range(wish.replicas >= disruption.FROM_REPLICAS)),
        *(workload.deployment(md, g, wish.progress_deadline) for g in wish.goals),
    )


def _needs_account(md: Manifest, goals: Iterable[Goal]) -> bool:
    """Frozen templates decide: an old revision may still use it."""
    return any(g.revision.template["spec"].get("serviceAccountName") == serviceaccount.name(md) for g in goals)
