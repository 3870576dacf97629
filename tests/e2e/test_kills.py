"""Killed in the middle: operators, a server's pod, a server's process, and the ModelDeployment itself."""

from __future__ import annotations

import json
import time

import pytest

from e2e.conftest import OPERATOR
from e2e.nodes import OnNode, kill
from e2e.traffic import assert_nothing_lost, load
from e2e.world import Manifests, World, model_deployment, post

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

BROKEN = ("ServerDisconnectedError", "ClientConnectorError", "ClientOSError", "ConnectionResetError")
"""What a client sees of a process that is no more, as aiohttp names it."""


def restarts(pods: Manifests) -> list[int]:
    return [status["restartCount"] for pod in pods for status in pod["status"].get("containerStatuses", [])]


def test_operators_killed_in_the_middle_of_a_rollout(
    world: World, namespace: str, digits: dict[str, str], image: list[float], on_node: OnNode
) -> None:
    world.apply(model_deployment("m", digits["1"], replicas=2, model={"version": "1"}), namespace=namespace)
    world.wait_ready("m", namespace, version="1")
    operators = world.list("pods", world.system_namespace, OPERATOR)
    with load(world, "m", namespace, image, rate=50) as tally:
        world.apply(model_deployment("m", digits["2"], replicas=2, model={"version": "2"}), namespace=namespace)
        world.wait(lambda: len(world.pods("m", namespace)) > 2, "the new pods to be made")
        for operator in operators:
            kill(on_node, operator)
        left = world.md("m", namespace)["status"]
        assert (left["version"], left["rollout"]["phase"]) == ("1", "Surging"), "killed in the middle"
        world.wait_ready("m", namespace, version="2", seconds=180)
        world.wait(lambda: len(world.pods("m", namespace)) == 2, "the old pods to go")
    assert_nothing_lost(tally, at_least=100)
    now = world.list("pods", world.system_namespace, OPERATOR)
    assert len(now) == len(operators) == 2
    assert all(after > before for before, after in zip(restarts(operators), restarts(now), strict=True))
    (deployment,) = world.list("deployments", namespace)
    assert deployment["status"]["readyReplicas"] == 2
    assert len(world.list("controllerrevisions", namespace)) == 2


def test_a_server_pod_deleted_under_load(
    world: World, namespace: str, digits: dict[str, str], image: list[float]
) -> None:
    world.apply(model_deployment("m", digits["1"], replicas=2), namespace=namespace)
    world.wait_ready("m", namespace)
    with load(world, "m", namespace, image, rate=100) as tally:
        victim = world.pods("m", namespace)[0]["metadata"]["name"]
        world.kubectl("delete", "pod", "-n", namespace, victim, "--wait=false")
        world.wait(lambda: victim not in [p["metadata"]["name"] for p in world.pods("m", namespace)], "the pod to go")
        world.wait_ready("m", namespace)
    assert_nothing_lost(tally, at_least=200)


def test_a_server_process_killed_under_load(
    world: World, namespace: str, digits: dict[str, str], image: list[float], on_node: OnNode
) -> None:
    """What was in flight in that process is lost, and what is sent there until the node has noticed; nothing else."""
    world.apply(model_deployment("m", digits["1"], replicas=2), namespace=namespace)
    world.wait_ready("m", namespace)
    pods = world.pods("m", namespace)
    rate = 50
    with load(world, "m", namespace, image, rate) as tally:
        kill(on_node, pods[0])
        world.wait(lambda: sum(restarts(world.pods("m", namespace))) == 1, "the kubelet to restart the container")
        world.wait_ready("m", namespace)
        lost = sum(tally.failures.values())
        seen = tally.sent
        world.wait(lambda: tally.sent >= seen + 4 * rate, "more requests, to both")
    assert sum(tally.failures.values()) == lost
    assert set(tally.answers) == {200}
    assert tally.answers[200] + lost == tally.sent
    assert all(told.startswith(BROKEN) for told in tally.failures), tally.failures
    assert lost <= 5 * rate, f"{lost} lost: more than one of two pods can lose in ten seconds"
    same = {pod["metadata"]["uid"] for pod in pods}
    assert {pod["metadata"]["uid"] for pod in world.pods("m", namespace)} == same


def test_the_only_server_process_killed_comes_back(
    world: World, namespace: str, digits: dict[str, str], image: list[float], on_node: OnNode
) -> None:
    world.apply(model_deployment("m", digits["1"]), namespace=namespace)
    world.wait_ready("m", namespace)
    kill(on_node, world.pods("m", namespace)[0])
    world.wait(lambda: restarts(world.pods("m", namespace)) == [1], "the kubelet to restart the container")
    world.wait_ready("m", namespace)
    status, answer = post(world.service_url("m", namespace) + "/model", {"model_name": "m", "input_data": [image]})
    assert status == 200, answer


def test_deleting_leaves_nothing_behind(world: World, namespace: str, digits: dict[str, str]) -> None:
    """Of whatever kind: all that the API server knows are asked for."""
    before = everything(world, namespace)
    world.apply(model_deployment("m", digits["1"], replicas=2, model={"version": "1"}), namespace=namespace)
    world.wait_ready("m", namespace)
    world.apply(model_deployment("m", digits["2"], replicas=2, model={"version": "2"}), namespace=namespace)
    md = world.wait_ready("m", namespace, version="2")
    assert "finalizers" not in md["metadata"]
    made = {name.partition("/")[0].partition(".")[0] for name in everything(world, namespace) - before}
    assert made >= {"modeldeployment", "controllerrevision", "deployment", "configmap", "service", "pod"}
    begin = time.monotonic()
    world.kubectl("delete", "md", "m", "-n", namespace, "--timeout=20s")
    assert time.monotonic() - begin < 15, "nothing may hold a deletion"
    world.wait(lambda: everything(world, namespace) <= before, "all children to go")


def everything(world: World, namespace: str) -> set[str]:
    """Objects of all kinds in the namespace, and those outside of namespaces that carry its name or our label."""
    inside = world.kubectl("get", kinds(world, namespaced=True), "-n", namespace, "-o", "name").split()
    managed = ("-l", "app.kubernetes.io/managed-by=modelpier")
    outside = world.kubectl("get", kinds(world, namespaced=False), *managed, "-o", "name").split()
    return {*inside, *outside}


def kinds(world: World, *, namespaced: bool) -> str:
    """All that can be listed but Events, which tell of what is gone."""
    known = world.kubectl("api-resources", "--verbs=list", f"--namespaced={json.dumps(namespaced)}", "-o", "name")
    return ",".join(kind for kind in known.split() if kind.partition(".")[0] != "events")


CRASH = """
import os, pathlib, signal
for folder in pathlib.Path("/proc").iterdir():
    if folder.name.isdigit() and int(folder.name) != os.getpid():
        command = (folder / "cmdline").read_text().split(chr(0))
        if "modelpier_server.runtime.isolation.worker" in command:
            os.kill(int(folder.name), signal.SIGSEGV)
            print(folder.name)
"""
"""Ends the processes of models within a container and prints their pids. The image has Python and no shell."""


def test_the_process_of_an_isolated_model_crashes(
    world: World, namespace: str, digits: dict[str, str], image: list[float]
) -> None:
    """The container goes on, and the model comes back in it."""
    world.apply(model_deployment("m", digits["1"], server={"isolated": True}), namespace=namespace)
    world.wait_ready("m", namespace)
    (pod,) = world.pods("m", namespace)

    def crash() -> list[str]:
        return world.kubectl("exec", "-n", namespace, pod["metadata"]["name"], "--", "python", "-c", CRASH).split()

    first = crash()
    assert len(first) == 1
    url, body = f"{world.service_url('m', namespace)}/model", {"model_name": "m", "input_data": [image]}
    world.wait(lambda: answers(url, body), "the model to answer again")
    (now,) = world.pods("m", namespace)
    assert now["metadata"]["uid"] == pod["metadata"]["uid"]
    assert restarts([now]) == [0]
    second = crash()
    assert len(second) == 1
    assert second != first, "it was another process that answered"


def answers(url: str, body: object) -> bool:
    """False also while the Service has no endpoint, or answers with a refusal."""
    try:
        return post(url, body)[0] == 200
    except (OSError, ValueError):
        return False
