"""Rollouts on real nodes: nothing is lost, GPUs are not exceeded."""

from __future__ import annotations

import json
import threading

import pytest

from e2e.traffic import assert_nothing_lost, load
from e2e.world import Manifest, Manifests, World, condition, model_deployment

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
    spec = {"replicas": gpus, "resources": {"gpu": 1}, "server": CPU, "rollout": {"strategy": "Replace"}}
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
    other = {**spec, "resources": {**resources, "cpu": "120m"}}
    world.apply(model_deployment("m", digits["2"], model={"version": "2"}, **other), namespace=namespace)
    md = world.wait_ready("m", namespace, version="2", seconds=180)
    assert md["status"]["rollout"]["strategy"] == "Replace"
    assert "GPU" in md["status"]["rollout"]["reason"]
    assert "needs other pods (resources)" in md["status"]["rollout"]["reason"]


def whole_node(world: World) -> Manifest:
    """`resources` of a pod that leaves no GPU of its node to a second one."""
    gpus = max(int(n["status"]["allocatable"].get("nvidia.com/gpu", 0)) for n in nodes(world))
    return {"gpu": gpus, "nodeSelector": {"kubernetes.io/hostname": nodes(world)[0]["metadata"]["name"]}}


def test_ten_thousand_requests_across_a_swap_on_one_gpu(
    world: World, namespace: str, digits: dict[str, str], image: list[float]
) -> None:
    """There and back again in the same pod, without a moment in which nobody answers."""
    spec = {"resources": whole_node(world), "server": CPU}
    world.apply(model_deployment("m", digits["1"], model={"version": "1"}, **spec), namespace=namespace)
    world.wait_ready("m", namespace, version="1")
    (before,) = world.pods("m", namespace)
    with load(world, "m", namespace, image, rate=250) as tally:
        for version in ("2", "1", "2"):
            world.apply(model_deployment("m", digits[version], model={"version": version}, **spec), namespace=namespace)
            md = world.wait_ready("m", namespace, version=version)
            assert md["status"]["rollout"]["strategy"] == "Swap"
        world.wait(lambda: tally.sent >= 10_000, "10,000 requests", seconds=180)
    assert_nothing_lost(tally, at_least=10_000)
    assert set(tally.versions) == {"1", "2"}
    (after,) = world.pods("m", namespace)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_bad_model_in_a_swap_leaves_the_good_one_serving(
    world: World, namespace: str, digits: dict[str, str], no_model: str, image: list[float]
) -> None:
    spec = {"resources": whole_node(world), "server": CPU}
    world.apply(model_deployment("m", digits["1"], model={"version": "1"}, **spec), namespace=namespace)
    world.wait_ready("m", namespace, version="1")
    (before,) = world.pods("m", namespace)
    with load(world, "m", namespace, image, rate=50) as tally:
        world.apply(model_deployment("m", no_model, model={"version": "2"}, **spec), namespace=namespace)
        md = world.wait_told("m", namespace, "ModelInvalid", "was given up")
        assert condition(md, "Available")["status"] == "True"
        assert [(r["version"], r["phase"]) for r in md["status"]["revisions"]] == [("1", "Serving"), ("2", "Failed")]
        assert told(world, namespace) == ["RolloutFailed", "RolloutStarted"], "each once"
        world.apply(model_deployment("m", digits["2"], model={"version": "3"}, **spec), namespace=namespace)
        world.wait_ready("m", namespace, version="3")
    assert_nothing_lost(tally, at_least=100)
    assert set(tally.versions) == {"1", "3"}
    (after,) = world.pods("m", namespace)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


def test_what_does_not_fit_twice_into_a_pod_is_replaced(world: World, namespace: str, big_model: str) -> None:
    """A server with 64 MiB of weights, and as much again: the kernel would end what serves as well."""
    spec = {"resources": {**whole_node(world), "memory": "280Mi"}, "server": CPU}
    world.apply(model_deployment("m", big_model, model={"version": "1"}, **spec), namespace=namespace)
    world.wait_ready("m", namespace, version="1")
    (before,) = world.pods("m", namespace)
    world.apply(model_deployment("m", big_model, model={"version": "2"}, **spec), namespace=namespace)
    md = world.wait_ready("m", namespace, version="2", seconds=180)
    assert md["status"]["rollout"]["strategy"] == "Replace"
    assert "do not fit into a pod" in md["status"]["rollout"]["reason"]
    (after,) = world.wait(lambda: [p for p in world.pods("m", namespace) if p["status"]["phase"] == "Running"], "a pod")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]


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


def told(world: World, namespace: str) -> list[str]:
    """Reasons of the Events about rollouts, by name: several fall into one second. Before the first one a pod may have
    waited for the GPUs of another test.
    """
    events = world.list("events", namespace, field="involvedObject.kind=ModelDeployment")
    return sorted(e["reason"] for e in events if e["reason"].startswith("Rollout"))


def nodes(world: World) -> Manifests:
    found: Manifests = json.loads(world.kubectl("get", "nodes", "-o", "json"))["items"]
    return found
