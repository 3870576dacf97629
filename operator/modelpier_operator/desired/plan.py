"""A serving plan as a ConfigMap, which a pod set mounts: pods find it even when no operator runs."""

from __future__ import annotations

from typing import Any

from modelpier_operator import names
from modelpier_operator.decide.facts import Manifest
from modelpier_operator.decide.goals import Goal
from modelpier_operator.decide.plan import SignedPlan
from modelpier_operator.desired.metadata import metadata
from modelpier_server import contract


def plan_config_map(md: Manifest, goal: Goal, plan: SignedPlan) -> dict[str, Any]:
    told = {names.ANNOTATION_REVISION: goal.revision.name}
    if goal.candidate:
        told[names.ANNOTATION_CANDIDATE] = goal.candidate.name
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(md, names.plan_name(goal.name), {names.LABEL_POD_SET: goal.name}, told),
        "data": {contract.PLAN_KEY: plan.raw.decode(), contract.SIGNATURE_KEY: plan.signature},
    }
