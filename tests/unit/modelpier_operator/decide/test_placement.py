"""The planner counts pods that fit, node by node, as the scheduler would for GPUs, selectors and taints."""

from __future__ import annotations

from typing import Any

import pytest

from modelpier_operator.api.v1alpha1 import Strategy
from modelpier_operator.decide.facts import Capacity, GpuPod
from modelpier_operator.decide.placement import Need, admits, choose, fits, hindrance
from support.builders import GPU, capacity, node

TAINT = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


def need(count: int = 1, selector: Any = None, *tolerations: Any) -> Need:
    return Need(GPU, count, selector or {}, tolerations)


def test_two_half_free_nodes_do_not_hold_one_pod() -> None:
    cluster = capacity(node("a", 4), node("b", 4), used={"a": 3, "b": 3})
    assert fits(need(2), cluster) == 0
    assert fits(need(1), cluster) == 2


def test_our_own_pods_can_be_taken_as_gone() -> None:
    cluster = Capacity((node("a", 2),), (GpuPod("team", "old", "a", {GPU: 2}),))
    assert fits(need(1), cluster) == 0
    assert fits(need(1), cluster, [("team", "old")]) == 2
    assert fits(need(1), cluster, [("elsewhere", "old")]) == 0


def test_a_pod_without_a_node_holds_nothing_yet() -> None:
    cluster = Capacity((node("a", 1),), (GpuPod("other", "waits", "", {GPU: 1}),))
    assert fits(need(1), cluster) == 1


@pytest.mark.parametrize(
    ("where", "wanted", "admitted"),
    [
        (node(), need(), True),
        (node(ready=False), need(), False),
        (node(unschedulable=True), need(), False),
        (node(labels={"zone": "a"}), need(1, {"zone": "a"}), True),
        (node(labels={"zone": "b"}), need(1, {"zone": "a"}), False),
        (node(taints=(TAINT,)), need(), False),
        (node(taints=({**TAINT, "effect": "PreferNoSchedule"},)), need(), True),
        (node(taints=(TAINT,)), need(1, {}, {"key": "gpu", "operator": "Exists"}), True),
        (node(taints=(TAINT,)), need(1, {}, {"operator": "Exists"}), True),
        (node(taints=(TAINT,)), need(1, {}, {"key": "gpu", "value": "yes"}), True),
        (node(taints=(TAINT,)), need(1, {}, {"key": "gpu", "value": "no"}), False),
        (node(taints=(TAINT,)), need(1, {}, {"key": "gpu", "operator": "Exists", "effect": "NoExecute"}), False),
        (
            node(taints=({"key": "gpu", "effect": "NoSchedule"},)),
            need(1, {}, {"key": "gpu", "operator": "Equal"}),
            True,
        ),
    ],
)
def test_where_a_pod_may_go(where: Any, wanted: Need, admitted: bool) -> None:
    assert admits(where, wanted) is admitted


@pytest.mark.parametrize(
    ("asked", "count", "cluster", "hinders", "chosen", "why"),
    [
        ("Surge", 1, capacity(node("a", 0)), None, "Surge", "The spec asks for it."),
        ("Replace", 0, None, None, "Replace", "The spec asks for it."),
        ("Swap", 0, None, None, "Swap", "The spec asks for it."),
        ("Swap", 0, None, "it rains", "Replace", "No Swap, because it rains."),
        ("Auto", 0, capacity(), None, "Surge", "No GPU"),
        ("Auto", 1, None, None, "Surge", "unknown"),
        ("Auto", 1, capacity(node("a", 2)), None, "Surge", "There is room for 2 new pods of 1 GPUs"),
        ("Auto", 1, capacity(node("a", 2), used={"a": 1}), None, "Swap", "There is room for 1 of 2 new pods"),
        ("Auto", 1, capacity(node("a", 2), used={"a": 1}), "it rains", "Replace", "beside the old ones, and it rains."),
    ],
)
def test_choice(asked: str, count: int, cluster: Any, hinders: str | None, chosen: str, why: str) -> None:
    choice = choose(Strategy(asked), need(count), 2, cluster, hinders)
    assert (choice.asked, choice.chosen) == (Strategy(asked), Strategy(chosen))
    assert why in choice.why


def template(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "server", "image": "x"}], **spec}}


def test_what_keeps_pods_from_taking_a_revision_is_named() -> None:
    assert hindrance(template(), template(), running=True) is None
    assert hindrance(template(), template(), running=False) == "none of the old pods runs"
    other = template(nodeSelector={"gpu": "a"}, containers=[{"name": "server", "image": "y"}])
    told = hindrance(template(), other, running=True)
    assert told == "the new revision needs other pods (image, nodeSelector)"
    helper = template(containers=[{"name": "server", "image": "x"}, {"name": "helper"}])
    assert hindrance(template(), helper, running=True) == "the new revision needs other pods (containers)"
