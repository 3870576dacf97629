"""Rollouts on real nodes: nothing is lost, GPUs are not exceeded."""

from __future__ import annotations

import json
import threading

import pytest

from e2e.traffic import assert_nothing_lost, load
from e2e.world import Manifests, World, condition, model_deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

CPU = {"executionProviders": [{"name": "CPUExecutionProvider"}]}
"""Fake GPUs can be granted, not computed on."""


def test_ten_thousand_requests_across_a_version_roll(
    world: World, namespace: str, digits: dict[str, str], image: list[float]
) -> None:
    world.apply(model_deployment("digits", digits["1"], replicas=2, model={"version": "1"}), namespace=namespace)
    world.wait_ready("digits", namespace, version="1")
    with load(world, "digits", namespace, image, rate=150) as tally:
        world.wait(lambda: tally.sent > 1000, "the first requests")
        world.apply(model_deployment("digits", digits["2"], replicas=2, model={"version": "2"}), namespace=namespace)
        world.wait_ready("digits", namespace, version="2")
        # The load goes on while the old pods drain and go away, and after.
        world.wait(lambda: len(world.pods("digits", namespace)) == 2, "the old pods to go")
        world.wait(lambda: tally.sent >= 10_000, "10,000 requests", seconds=180)
    assert_nothing_lost(tally, at_least=10_000)
    assert set(tally.versions) == {"1", "2"}
    md = world.md("digits", namespace)
    assert md["status"]["rollout"]["strategy"] == "Surge"


def test_replace_when_all_gpus_are_taken(
    world: World, namespace: str, digits: dict[str, str], image: list[float]
) -> None:
    gpus = sum(int(n["status"]["allocatable"].get("nvidia.com/gpu", 0)) for n in nodes(world))
    spec = {"replicas": gpus, "resources": {"gpu": 1}, "server": CPU}
    world.apply(model_deployment("m", digits["1"], model={"version": "1"}, **spec), namespace=namespace)
    world.wait_ready("m", namespace, version="1")
    most, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            alive = [p for p in world.pods("m", namespace) if p["status"]["phase"] in ("Pending", "Running")]
            most[0] = max(most[0], len([p for p in alive if p["spec"].get("nodeName")]))
            stop.wait(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with load(world, "m", namespace, image, rate=50) as tally:
            world.apply(model_deployment("m", digits["2"], model={"version": "2"}, **spec), namespace=namespace)
            md = world.wait_ready("m", namespace, version="2", seconds=240)
            world.wait(lambda: len(world.pods("m", namespace)) == gpus, "the old pods to go")
    finally:
        stop.set()
        watcher.join()
    assert_nothing_lost(tally, at_least=100)
    assert md["status"]["rollout"]["strategy"] == "Replace"
    assert most[0] <= gpus, "a scheduled pod holds a GPU: never more than there are"


def test_replace_of_a_single_pod_finishes_by_itself(world: World, namespace: str, digits: dict[str, str]) -> None:
    gpus = max(int(n["status"]["allocatable"].get("nvidia.com/gpu", 0)) for n in nodes(world))
    first = nodes(world)[0]["metadata"]["name"]
    resources = {"gpu": gpus, "nodeSelector": {"kubernetes.io/hostname": first}}
    spec = {"resources": resources, "server": CPU}
    world.apply(model_deployment("m", digits["1"], model={"version": "1"}, **spec), namespace=namespace)
    world.wait_ready("m", namespace, version="1")
    world.apply(model_deployment("m", digits["2"], model={"version": "2"}, **spec), namespace=namespace)
    md = world.wait_ready("m", namespace, version="2", seconds=180)
    assert md["status"]["rollout"]["strategy"] == "Replace"
    assert "GPU" in md["status"]["rollout"]["reason"]


def test_scaling_and_disruption_budget(world: World, namespace: str, digits: dict[str, str]) -> None:
    world.apply(model_deployment("m", digits["1"]), namespace=namespace)
    world.wait_ready("m", namespace)
    assert world.get("poddisruptionbudget", "m", namespace) is None
    world.kubectl("scale", "md/m", "-n", namespace, "--replicas=2")
    world.wait(lambda: world.md("m", namespace)["status"].get("readyReplicas") == 2, "two ready pods")
    world.wait(lambda: world.get("poddisruptionbudget", "m", namespace), "a disruption budget from two replicas on")
    world.kubectl("scale", "md/m", "-n", namespace, "--replicas=0")
    md = world.wait_ready("m", namespace)
    assert condition(md, "Ready")["reason"] == "ScaledToZero"
    world.wait(lambda: not world.pods("m", namespace), "no pods")


def nodes(world: World) -> Manifests:
    found: Manifests = json.loads(world.kubectl("get", "nodes", "-o", "json"))["items"]
    return found
