from __future__ import annotations

from typing import Any

import pytest

from modelpier_operator.cluster.capacity import CapacityCache, node_fact, pod_requests
from modelpier_operator.decide.facts import GpuPod

GPU = "nvidia.com/gpu"


def container(gpus: int, **more: Any) -> dict[str, Any]:
    return {"resources": {"limits": {GPU: str(gpus), "memory": "1Gi"}}, **more}


def pod(name: str, gpus: int, node: str = "n1", phase: str = "Running") -> dict[str, Any]:
    spec = {"nodeName": node, "containers": [container(gpus) if gpus else {}]}
    return {"metadata": {"name": name, "namespace": "x"}, "spec": spec, "status": {"phase": phase}}


def node(gpus: int = 8) -> dict[str, Any]:
    status = {"allocatable": {GPU: str(gpus), "cpu": "8", "hugepages-2Mi": "0"}}
    ready = {"type": "Ready", "status": "True"}
    return {
        "metadata": {"name": "n1", "labels": {"zone": "a"}},
        "spec": {},
        "status": {**status, "conditions": [ready]},
    }


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"containers": [container(1), container(2)]}, {GPU: 3}),
        ({"containers": [container(1)], "initContainers": [container(4)]}, {GPU: 4}),
        ({"containers": [container(1)], "initContainers": [container(2, restartPolicy="Always")]}, {GPU: 3}),
        ({"containers": [{"resources": {"requests": {"cpu": "1"}}}]}, {}),
        ({"containers": [{}]}, {}),
    ],
)
def test_a_pod_asks_for_what_the_scheduler_counts(spec: dict[str, Any], wanted: dict[str, int]) -> None:
    assert pod_requests(spec) == wanted


def test_a_node_is_what_it_can_give() -> None:
    fact = node_fact(node())
    assert (fact.name, fact.ready, fact.unschedulable, dict(fact.allocatable)) == ("n1", True, False, {GPU: 8})
    assert not node_fact({**node(), "status": {"conditions": []}}).ready


def test_capacity_is_known_once_both_listings_are_complete() -> None:
    cache = CapacityCache()
    cache.nodes.put(node())
    cache.nodes.retain(None, {("", "n1")}, 1)
    assert cache.get() is None
    cache.pods.put(pod("a", 2))
    cache.pods.put(pod("no gpu", 0))
    cache.pods.put(pod("ended", 2, phase="Succeeded"))
    cache.pods.retain(None, {("x", "a"), ("x", "no gpu"), ("x", "ended")}, 1)
    capacity = cache.get()
    assert capacity is not None
    assert capacity.pods == (GpuPod("x", "a", "n1", {GPU: 2}),)
    assert cache.get() is capacity, "made once"


def test_capacity_follows_changes_and_is_unknown_without_rights() -> None:
    cache = CapacityCache()
    for facts in (cache.nodes, cache.pods):
        facts.retain(None, set(), 1)
    cache.pods.put(pod("a", 2))
    cache.pods.put(pod("a", 2, phase="Failed"))
    capacity = cache.get()
    assert capacity is not None
    assert capacity.pods == ()
    cache.nodes.denied()
    assert cache.get() is None
