"""The planner counts pods that fit, node by node, as the scheduler would for GPUs, selectors and taints."""

from __future__ import annotations

from typing import Any

import pytest

from modelpier_operator.api.v1alpha1 import Strategy
from modelpier_operator.decide.facts import Capacity, GpuPod
from modelpier_operator.decide.placement import Need, admits, choose, fits
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
    ("asked", "count", "cluster", "chosen", "why"),
    [
        ("Surge", 1, capacity(node("a", 0)), "Surge", "The spec asks for it."),
        ("Replace", 0, None, "Replace", "The spec asks for it."),
        ("Auto", 0, capacity(), "Surge", "No GPU"),
        ("Auto", 1, None, "Surge", "unknown"),
        ("Auto", 1, capacity(node("a", 2)), "Surge", "There is room for 2 new pods of 1 GPUs"),
        ("Auto", 1, capacity(node("a", 2), used={"a": 1}), "Replace", "There is room for 1 of 2 new pods"),
    ],
)
def test_choice(asked: str, count: int, cluster: Any, chosen: str, why: str) -> None:
    choice = choose(Strategy(asked), need(count), 2, cluster)
    assert (choice.asked, choice.chosen) == (Strategy(asked), Strategy(chosen))
    assert why in choice.why
