"""Pods and pod sets as a pass sees them."""

from __future__ import annotations

import pytest

from modelpier_operator.decide import clock, gather, podset
from modelpier_operator.decide.facts import Observed
from modelpier_operator.judge import judge
from support.builders import KEYS, T0, at, md, pod, settings, stamp


def test_a_pod_that_leaves_is_not_ready_whatever_the_kubelet_says() -> None:
    assert podset.pod(pod("s", ready=True)).ready
    assert not podset.pod(pod("s", ready=True, deleted=9)).ready
    assert not podset.pod(pod("s", ready=True, phase="Failed")).ready


@pytest.mark.parametrize(("second", "holds", "left"), [(0, True, 40.0), (39, True, 1.0), (40, False, None)])
def test_a_pod_on_a_lost_node_is_not_waited_for(second: int, holds: bool, left: float | None) -> None:
    leaving = podset.pod(pod("s", deleted=30))
    assert leaving.holds_resources(at(second)) is holds
    assert leaving.overdue_in(at(second)) == left


def test_what_holds_resources() -> None:
    assert podset.pod(pod("s")).holds_resources(at(999))
    assert not podset.pod(pod("s", phase="Failed")).holds_resources(T0)


def test_objects_of_others_are_none_of_our_business() -> None:
    outcome = judge(Observed(md()), settings(), KEYS, T0)
    foreign = tuple({**c, "metadata": {**c["metadata"], "ownerReferences": []}} for c in outcome.children)
    facts = gather.gather(Observed(md(), children=foreign))
    assert not facts.owned
    assert not facts.revisions
    assert not facts.pod_sets
    assert judge(Observed(md(), children=foreign), settings(), KEYS, T0).delete == ()


def test_pods_of_a_deleted_set_still_count() -> None:
    facts = gather.gather(Observed(md(), pods=(pod("gone", deleted=30),)))
    assert [p.pod_set for p in facts.stray] == ["gone"]
    assert facts.pods_beside("new") == facts.stray


def test_times() -> None:
    assert clock.parse(clock.stamp(at(1.5))) == at(1.5)
    assert clock.parse("nonsense") is None
    assert clock.parse("2030-01-01T00:00:00") == T0, "without a zone it is UTC"
    assert clock.elapsed(stamp(5), at(9)) == 4
    assert clock.elapsed(stamp(9), at(5)) == 0
    assert clock.elapsed(None, at(5)) == 0
    assert clock.later(None, stamp(1), stamp(3), "nonsense") == stamp(3)
    assert clock.later(None) is None
