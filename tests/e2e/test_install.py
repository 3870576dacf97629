"""The chart's life on real nodes: an upgrade rolls the operator alone, an uninstallation leaves the models serving, a
new installation takes them over. All of it by the real Helm, from the release that `make install` made.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from e2e.conftest import OPERATOR, RELEASE, Upgraded
from e2e.world import World, condition, model_deployment, post
from support.helm import CHART, Helm

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]


@pytest.fixture
def system(world: World) -> tuple[str, ...]:
    return ("-n", world.system_namespace)


def pod_uids(world: World, namespace: str, selector: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in world.list("pods", namespace, selector)}


def predicts(url: str) -> bool:
    status, answer = post(f"{url}/model", {"model_name": "kept", "input_data": [[0.0] * 64]})
    return status == 200 and "label" in answer["output_data"]


def test_the_release_answers(helm: Helm, system: tuple[str, ...]) -> None:
    assert "Succeeded" in helm("test", RELEASE, *system, "--timeout", "2m", timeout=150)


def test_an_upgrade_rolls_the_operator_and_no_model(
    world: World, helm: Helm, system: tuple[str, ...], namespace: str, digits: dict[str, str]
) -> None:
    world.apply(model_deployment("kept", digits["1"], replicas=2), namespace=namespace)
    world.wait_ready("kept", namespace)
    models, operators = pod_uids(world, namespace, ""), pod_uids(world, world.system_namespace, OPERATOR)
    change = ("--reset-then-reuse-values", "--set", "operator.logLevel=DEBUG")
    helm("upgrade", RELEASE, str(CHART), *system, *change, "--wait", "--timeout", "3m", timeout=200)
    world.wait(lambda: not operators & pod_uids(world, world.system_namespace, OPERATOR), "new operator pods")
    # The new leader makes a pass over everything; that it leads is seen from a change that it carries out.
    world.kubectl("scale", "md/kept", "-n", namespace, "--replicas=3")
    world.wait_ready("kept", namespace)
    assert models < pod_uids(world, namespace, "")
    helm("rollback", RELEASE, *system, "--wait", "--timeout", "3m", timeout=200)


def test_models_outlive_the_release(
    world: World, helm: Helm, system: tuple[str, ...], namespace: str, digits: dict[str, str], tmp_path: Path
) -> None:
    world.apply(model_deployment("kept", digits["1"], replicas=1), namespace=namespace)
    world.wait_ready("kept", namespace)
    url, models = world.service_url("kept", namespace), pod_uids(world, namespace, "")
    before = world.md("kept", namespace)
    values = tmp_path / "values.yaml"
    values.write_text(helm("get", "values", RELEASE, *system, "-o", "yaml"))

    helm("uninstall", RELEASE, *system, "--wait", "--timeout", "2m", timeout=150)
    try:
        world.wait(lambda: not world.list("pods", world.system_namespace, OPERATOR), "the operators' end")
        assert world.md("kept", namespace)["metadata"]["uid"] == before["metadata"]["uid"]
        assert predicts(url)
    finally:
        install = ("install", RELEASE, str(CHART), *system, "--values", str(values), "--wait", "--timeout", "3m")
        helm(*install, timeout=200)

    world.kubectl("scale", "md/kept", "-n", namespace, "--replicas=2")
    after = world.wait_ready("kept", namespace)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert models < pod_uids(world, namespace, ""), "the pod of before goes on beside the new one"
    assert predicts(url)
    # The key that signs plans is the same: a pod that trusts the old one takes the new leader's plans.
    assert condition(after, "Degraded").get("status") != "True"


def test_a_release_for_listed_namespaces_serves_there_alone(
    world: World, namespace: str, digits: dict[str, str], upgraded: Upgraded
) -> None:
    """With Roles in place of the ClusterRole, and no right anywhere else."""
    account = f"--as=system:serviceaccount:{world.system_namespace}:modelpier-operator"
    may = ("auth", "can-i", "patch", "modeldeployments.modelpier.dev", "--subresource=status", account, "-n")
    with upgraded(f"watchNamespaces={{{namespace}}}"):
        held = {place: world.kubectl(*may, place, check=False).strip() for place in (namespace, "default")}
        assert held == {namespace: "yes", "default": "no"}
        world.apply(model_deployment("ignored", digits["1"]), namespace="default")
        try:
            world.apply(model_deployment("kept", digits["1"], replicas=2), namespace=namespace)
            world.wait_ready("kept", namespace)
            assert predicts(world.service_url("kept", namespace))
            world.apply(model_deployment("kept", digits["2"], model={"version": "2"}), namespace=namespace)
            world.wait_ready("kept", namespace, version="2")
            assert "status" not in world.md("ignored", "default")
            assert world.pods("ignored", "default") == []
        finally:
            world.kubectl("delete", "md", "ignored", "-n", "default")
    assert world.kubectl(*may, "default", check=False).strip() == "yes", "as before"


def test_a_value_that_is_misspelt_changes_nothing(world: World, helm: Helm, system: tuple[str, ...]) -> None:
    operators = pod_uids(world, world.system_namespace, OPERATOR)
    done = helm.run("upgrade", RELEASE, str(CHART), *system, "--reset-then-reuse-values", "--set", "operator.replcas=3")
    assert done.returncode != 0
    assert "replcas" in done.stderr
    assert pod_uids(world, world.system_namespace, OPERATOR) == operators


def test_the_operator_is_ready_within_seconds(world: World) -> None:
    """Its image carries byte code: on a read-only root every start would compile the libraries otherwise."""
    (pod, *_) = world.list("pods", world.system_namespace, OPERATOR)
    world.kubectl("delete", "pod", pod["metadata"]["name"], "-n", world.system_namespace, "--wait=false")
    begin = time.monotonic()

    def ready() -> bool:
        pods = world.list("pods", world.system_namespace, OPERATOR)
        conditions = [c for p in pods for c in p["status"].get("conditions", []) if c["type"] == "Ready"]
        others = {p["metadata"]["uid"] for p in pods} - {pod["metadata"]["uid"]}
        return len(others) == 2 and all(c["status"] == "True" for c in conditions) and len(conditions) == 2

    world.wait(ready, "two ready operators", 60)
    print(f"a new operator pod was ready after {time.monotonic() - begin:.1f} s")
