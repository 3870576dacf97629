"""Makes what a pass looks at from the caches, without a request. Called by `reconcile` at the start of each round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelpier_operator import names
from modelpier_operator.cluster.caches import Caches
from modelpier_operator.cluster.kinds import CHILDREN, Key, controller
from modelpier_operator.cluster.reports import ReportSource
from modelpier_operator.decide.facts import Observed, Problem

Object = dict[str, Any]


def observe(caches: Caches, reports: ReportSource, md: Mapping[str, Any], problems: tuple[Problem, ...]) -> Observed:
    """Children are those that this very ModelDeployment controls: labels alone make nobody's object ours."""
    owner = owner_key(md)
    uid = md["metadata"]["uid"]
    children = (child for kind in CHILDREN for child in caches.children[kind].owned_by(owner))
    pods = tuple(caches.pods.owned_by(owner))
    pod_uids = [pod["metadata"]["uid"] for pod in pods]
    return Observed(
        md=md,
        children=tuple(child for child in children if controller(child).get("uid") == uid),
        replica_sets=tuple(caches.replica_sets.owned_by(owner)),
        pods=pods,
        reports={pod: report for pod in pod_uids if (report := reports.report(pod)) is not None},
        capacity=caches.capacity.get(),
        problems=problems,
        warnings={pod: said for pod in pod_uids if (said := caches.complaints.of(pod))},
        unreachable={pod: why for pod in pod_uids if (why := reports.unreachable(pod))},
    )


def owner_key(md: Mapping[str, Any]) -> Key:
    """(namespace, label value) under which the caches find what belongs to a ModelDeployment."""
    return md["metadata"]["namespace"], names.label_value(md["metadata"]["name"])
