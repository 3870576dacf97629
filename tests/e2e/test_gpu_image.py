"""The GPU server's image where no real GPU is: it says why it cannot serve, and is never ready on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.conftest import make
from e2e.world import World, condition, model_deployment
from support.helm import CHART, MISSING, Helm, find_helm

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(1800)]


@pytest.fixture
def gpu_image(environment: dict[str, str], world: World, server_image: str, tmp_path: Path) -> Iterator[str]:
    """Built, and used by the release for ModelDeployments that ask for GPUs, for the time of one test."""
    make("images-gpu", f"TAG={server_image.rpartition(':')[2]}")
    program = environment.get("MODELPIER_HELM") or find_helm()
    if program is None:
        pytest.skip(MISSING)
    helm = Helm(program, tmp_path, environment.get("KUBECONFIG") or os.environ["KUBECONFIG"])
    system, wait = ("-n", world.system_namespace), ("--wait", "--timeout", "3m")
    values = ("--reset-then-reuse-values", "--set", "server.gpuImage.repository=modelpier-server-gpu")
    helm("upgrade", "modelpier", str(CHART), *system, *values, *wait, timeout=200)
    yield server_image.replace("/modelpier-server:", "/modelpier-server-gpu:")
    helm("rollback", "modelpier", *system, *wait, timeout=200)


def test_without_a_gpu_it_refuses(world: World, namespace: str, digits: dict[str, str], gpu_image: str) -> None:
    world.apply(model_deployment("g", digits["1"], resources={"gpu": 1}), namespace=namespace)
    # Pulling half a gigabyte comes first.
    md = world.wait_reason("g", namespace, "ProviderUnavailable", seconds=300)
    (pod, *_) = world.pods("g", namespace)
    assert pod["spec"]["containers"][0]["image"] == gpu_image
    assert condition(md, "Available")["status"] == "False"
    assert "CUDAExecutionProvider" in condition(md, "Ready")["message"]
