"""One cluster for all end-to-end tests: KUBECONFIG's, or a local one that is brought up here and taken down at the end.

A new user's commands make it: `make cluster-up images install`. Where they cannot work (no root, no Linux) the tests
skip with the reason and what would enable them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from digits.train import train
from e2e.nodes import OnNode
from e2e.world import Store, World
from support.helm import CHART, MISSING, Helm, find_helm

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = os.environ.get("MODELPIER_E2E_CLUSTER", "e2e")
RELEASE = "modelpier"
OPERATOR = "app.kubernetes.io/name=modelpier-operator"
"""Selects the operator's pods."""


def make(*targets: str) -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", *targets, f"CLUSTER={CLUSTER}", "NODES=2", "GPUS=2"],
        cwd=ROOT,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1500,
    )
    if done.returncode:
        pytest.fail(f"make {' '.join(targets)} failed:\n{done.stdout[-4000:]}", pytrace=False)


FOREIGN = os.environ.get("KUBECONFIG", "")
"""Somebody's own cluster: nothing local is started, and Modelpier is there by `make images install`."""


def why_not() -> str | None:
    """Why no cluster can be had here, and what would help."""
    if FOREIGN:
        return None
    if os.uname().sysname != "Linux":
        return "no Linux: set KUBECONFIG to a cluster in which `make images install` has worked"
    if os.geteuid() != 0:
        return "not root: run `sudo -E make test-e2e`, or set KUBECONFIG to a cluster"
    return None


@pytest.fixture(scope="session")
def environment() -> Iterator[dict[str, str]]:
    """The variables of `make cluster-env` for a cluster in which Modelpier is installed."""
    if reason := why_not():
        pytest.skip(reason)
    if FOREIGN:
        yield {"MODELPIER_KUBECTL": shutil.which("kubectl") or "kubectl", **os.environ}
        return
    make("cluster-up")
    try:
        make("images", "install")
        raw = subprocess.run(
            ["make", "--no-print-directory", "-s", "cluster-env", f"CLUSTER={CLUSTER}"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        lines = [line.removeprefix("export ") for line in raw.splitlines() if "=" in line]
        yield {k: v.strip("\"'") for k, _, v in (line.partition("=") for line in lines)}
    finally:
        if not os.environ.get("MODELPIER_KEEP_CLUSTER"):
            make("cluster-down")


@pytest.fixture(scope="session")
def world(environment: dict[str, str]) -> World:
    if "MODELPIER_S3_ENDPOINT" not in environment:
        pytest.skip(
            "no object storage: set MODELPIER_S3_ENDPOINT, MODELPIER_S3_ACCESS_KEY and MODELPIER_S3_SECRET_KEY to one "
            "that pods and this machine reach, or unset KUBECONFIG to use a local cluster"
        )
    store = Store(
        environment["MODELPIER_S3_ENDPOINT"],
        environment["MODELPIER_S3_ACCESS_KEY"],
        environment["MODELPIER_S3_SECRET_KEY"],
    )
    return World(environment["MODELPIER_KUBECTL"], environment["KUBECONFIG"], store)


@pytest.fixture
def namespace(world: World) -> Iterator[str]:
    """A fresh namespace under the `restricted` Pod Security Standard, with the Secret `s3`."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    secret = {
        "AWS_ACCESS_KEY_ID": world.store.access_key,
        "AWS_SECRET_ACCESS_KEY": world.store.secret_key,
        "AWS_ENDPOINT_URL": world.store.endpoint,
        "AWS_REGION": "us-east-1",
    }
    world.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}, namespace=name)
    world.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3"}, "stringData": secret}, namespace=name
    )
    yield name
    world.kubectl("delete", "namespace", name, "--wait=false", check=False)


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    train(folder)
    return folder


@pytest.fixture(scope="session")
def image(digits_folder: Path) -> list[float]:
    """The pixels of a digit."""
    held: list[float] = np.load(digits_folder / "test.npz")["pixels"][0].tolist()
    return held


@pytest.fixture(scope="session")
def digits(world: World, digits_folder: Path) -> dict[str, str]:
    """Uris of the two digit classifiers by version."""
    return {
        version: world.store.upload(digits_folder / version / "model.onnx", f"digits/{version}/model.onnx")
        for version in ("1", "2")
    }


@pytest.fixture(scope="session")
def big_model(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Uri of a model of 64 MiB."""
    weights = np.random.default_rng(0).random((4096, 4096), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4096])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4096])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path_factory.mktemp("big") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return world.store.upload(path, "big/model.onnx")


@pytest.fixture(scope="session")
def no_model(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Uri of a file that is no ONNX model."""
    path = tmp_path_factory.mktemp("no") / "model.onnx"
    path.write_bytes(b"this is no model\n" * 100)
    return world.store.upload(path, "broken/model.onnx")


@pytest.fixture(scope="session")
def operator_env(world: World) -> dict[str, str]:
    raw = world.kubectl("get", "deployments", "-n", world.system_namespace, "-o", "json")
    containers = [c for d in json.loads(raw)["items"] for c in d["spec"]["template"]["spec"]["containers"]]
    env = {e["name"]: e.get("value", "") for e in containers[0]["env"]}
    return {**env, "OPERATOR_IMAGE": containers[0]["image"]}


@pytest.fixture(scope="session")
def operator_image(operator_env: dict[str, str]) -> str:
    return operator_env["OPERATOR_IMAGE"]


@pytest.fixture(scope="session")
def server_image(operator_env: dict[str, str]) -> str:
    return operator_env["MODELPIER_SERVER_IMAGE"]


@pytest.fixture(scope="session")
def on_node(world: World) -> OnNode:
    """Runs a command on a node, as its kernel or its administrator could."""
    if FOREIGN:
        pytest.skip("nodes of a foreign cluster are not ours to enter: unset KUBECONFIG to use a local one")

    def run(node: str, *command: str) -> None:
        driver = [sys.executable, str(ROOT / "cluster" / "cluster.py"), "exec", "--name", CLUSTER, node, *command]
        done = subprocess.run(driver, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{node}: {' '.join(command)}: {done.stderr}"

    assert world
    return run


@pytest.fixture(scope="session")
def audit_log(environment: dict[str, str]) -> Path:
    if "MODELPIER_AUDIT_LOG" not in environment:
        pytest.skip("no audit log: set MODELPIER_AUDIT_LOG to the API server's, or unset KUBECONFIG to use a local one")
    return Path(environment["MODELPIER_AUDIT_LOG"])


@pytest.fixture
def helm(environment: dict[str, str], tmp_path: Path) -> Helm:
    program = environment.get("MODELPIER_HELM") or find_helm()
    if program is None:
        pytest.skip(MISSING)
    return Helm(program, tmp_path, environment.get("KUBECONFIG") or os.environ["KUBECONFIG"])


Upgraded = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def upgraded(world: World, helm: Helm) -> Upgraded:
    """The release with other values, for as long as a block takes: `with upgraded("allowPodOverrides=true"):`."""
    system, wait = ("-n", world.system_namespace), ("--wait", "--timeout", "3m")

    def operators() -> set[str]:
        return {pod["metadata"]["uid"] for pod in world.list("pods", world.system_namespace, OPERATOR)}

    def change(*command: str) -> None:
        before = operators()
        helm(*command, *system, *wait, timeout=200)
        world.wait(lambda: not before & operators(), "operators with these values alone")

    @contextmanager
    def values(*changed: str) -> Iterator[None]:
        flags = [flag for value in changed for flag in ("--set", value)]
        change("upgrade", RELEASE, str(CHART), "--reset-then-reuse-values", *flags)
        try:
            yield
        finally:
            change("rollback", RELEASE)

    return values


@pytest.fixture(scope="session")
def registry(server_image: str) -> str:
    return server_image.partition("/")[0]
