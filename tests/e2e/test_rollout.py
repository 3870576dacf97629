"""Rollouts on real nodes: nothing is lost, GPUs are not exceeded, kills in the middle change nothing."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from digits.load import Load, Tally, run
from e2e.world import Manifests, World, condition, model_deployment, post

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

CPU = {"executionProviders": [{"name": "CPUExecutionProvider"}]}
"""Fake GPUs can be granted, not computed on."""


@pytest.fixture(scope="module")
def image(digits_folder: Path) -> list[float]:
    held: list[float] = np.load(digits_folder / "test.npz")["pixels"][0].tolist()
    return held


def infer_body(pixels: list[float]) -> bytes:
    return json.dumps({"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": pixels}]}).encode()


@contextmanager
def load(url: str, body: bytes, rate: float, limit: int) -> Iterator[Tally]:
    """An open-loop load in a thread; ends at `limit` or when the block ends, and every answer is waited for."""
    tally, done = Tally(), threading.Event()
    order = Load(url, body, rate, limit)
    thread = threading.Thread(target=lambda: asyncio.run(run(order, tally, done.is_set)))
    thread.start()
    try:
        yield tally
    finally:
        done.set()
        thread.join(timeout=120)


def assert_nothing_lost(tally: Tally, at_least: int) -> None:
    assert tally.lost == 0, f"{tally.lost} of {tally.sent} lost: {dict(tally.answers)} {dict(tally.failures)}"
    assert tally.sent >= at_least


def test_ten_thousand_requests_across_a_version_roll(
    world: World, namespace: str, digits: dict[str, str], image: list[float]
) -> None:
    world.apply(model_deployment("digits", digits["1"], replicas=2, model={"version": "1"}), namespace=namespace)
    world.wait_ready("digits", namespace, version="1")
    url = world.service_url("digits", namespace) + "/v2/models/digits/infer"
    with load(url, infer_body(image), rate=150, limit=10_000) as tally:
        world.wait(lambda: tally.sent > 1000, "a steady load")
        world.apply(model_deployment("digits", digits["2"], replicas=2, model={"version": "2"}), namespace=namespace)
        world.wait_ready("digits", namespace, version="2")
        # The rest of the load runs while the old pods drain and go away.
        world.wait(lambda: tally.sent >= 10_000, "10,000 requests", seconds=180)
        world.wait(lambda: len(world.pods("digits", namespace)) == 2, "the old pods to go")
    assert_nothing_lost(tally, at_least=10_000)
    assert tally.versions["1"] > 0
    assert tally.versions["2"] > 0
    md = world.md("digits", namespace)
    assert md["status"]["rollout"]["strategy"] == "Surge"


def test_replace_when_all_gpus_are_taken(
    world: World, namespace: str, digits: dict[str, str], image: list[float]
) -> None:
    gpus = sum(int(n["status"]["allocatable"].get("nvidia.com/gpu", 0)) for n in nodes(world))
    spec = {"replicas": gpus, "resources": {"gpu": 1}, "server": CPU}
    world.apply(model_deployment("m", digits["1"], model={"version": "1"}, **spec), namespace=namespace)
    world.wait_ready("m", namespace, version="1")
    url = world.service_url("m", namespace) + "/v2/models/m/infer"
    most, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            alive = [p for p in world.pods("m", namespace) if p["status"]["phase"] in ("Pending", "Running")]
            most[0] = max(most[0], len([p for p in alive if p["spec"].get("nodeName")]))
            stop.wait(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with load(url, infer_body(image), rate=50, limit=20_000) as tally:
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


def test_operators_killed_in_the_middle_of_a_rollout(
    world: World, namespace: str, digits: dict[str, str], image: list[float]
) -> None:
    world.apply(model_deployment("m", digits["1"], replicas=2, model={"version": "1"}), namespace=namespace)
    world.wait_ready("m", namespace, version="1")
    url = world.service_url("m", namespace) + "/v2/models/m/infer"
    with load(url, infer_body(image), rate=50, limit=20_000) as tally:
        world.apply(model_deployment("m", digits["2"], replicas=2, model={"version": "2"}), namespace=namespace)
        world.wait(lambda: len(world.pods("m", namespace)) > 2, "the new pods to be made")
        pods = ("-n", world.system_namespace, "-l", "app.kubernetes.io/name=modelpier-operator")
        world.kubectl("delete", "pods", *pods, "--grace-period=0", "--force", "--wait=false")
        world.wait_ready("m", namespace, version="2", seconds=180)
        world.wait(lambda: len(world.pods("m", namespace)) == 2, "the old pods to go")
    assert_nothing_lost(tally, at_least=100)


def test_a_server_pod_deleted_under_load(
    world: World, namespace: str, digits: dict[str, str], image: list[float]
) -> None:
    world.apply(model_deployment("m", digits["1"], replicas=2), namespace=namespace)
    world.wait_ready("m", namespace)
    url = world.service_url("m", namespace) + "/v2/models/m/infer"
    with load(url, infer_body(image), rate=100, limit=20_000) as tally:
        world.wait(lambda: tally.sent > 200, "a steady load")
        victim = world.pods("m", namespace)[0]["metadata"]["name"]
        world.kubectl("delete", "pod", "-n", namespace, victim, "--wait=false")
        world.wait(lambda: victim not in [p["metadata"]["name"] for p in world.pods("m", namespace)], "the pod to go")
        world.wait_ready("m", namespace)
    assert_nothing_lost(tally, at_least=200)


def test_a_server_process_killed_comes_back(
    world: World, namespace: str, digits: dict[str, str], image: list[float], on_node: Callable[..., None]
) -> None:
    world.apply(model_deployment("m", digits["1"]), namespace=namespace)
    world.wait_ready("m", namespace)
    pod = world.pods("m", namespace)[0]
    # PID 1 of a container cannot be killed from inside: its node does it, as the kernel does out of memory.
    on_node(pod["spec"]["nodeName"], "pkill", "-KILL", "-f", "bin/modelpier-server")

    def restarted() -> bool:
        statuses = world.pods("m", namespace)[0]["status"].get("containerStatuses", [])
        return any(s["restartCount"] > 0 for s in statuses)

    world.wait(restarted, "the kubelet to restart the container")
    world.wait_ready("m", namespace)
    status, answer = post(world.service_url("m", namespace) + "/model", {"model_name": "m", "input_data": [image]})
    assert status == 200, answer


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


def test_deleting_leaves_nothing_behind(world: World, namespace: str, digits: dict[str, str]) -> None:
    kinds = (
        "controllerrevisions,configmaps,deployments,replicasets,pods,services,poddisruptionbudgets,"
        "serviceaccounts,networkpolicies,endpointslices"
    )
    before = names(world, kinds, namespace)
    world.apply(model_deployment("m", digits["1"], replicas=2), namespace=namespace)
    world.wait_ready("m", namespace)
    assert names(world, kinds, namespace) != before
    begin = time.monotonic()
    world.kubectl("delete", "md", "m", "-n", namespace, "--timeout=20s")
    assert time.monotonic() - begin < 15, "no finalizer may hold a deletion"
    world.wait(lambda: names(world, kinds, namespace) == before, "all children to go")


def names(world: World, kinds: str, namespace: str) -> set[str]:
    return set(world.kubectl("get", kinds, "-n", namespace, "-o", "name").split())


def nodes(world: World) -> Manifests:
    found: Manifests = json.loads(world.kubectl("get", "nodes", "-o", "json"))["items"]
    return found
