"""The GPU server's image where no real GPU is: it says why it cannot serve, and is never ready on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.conftest import Upgraded, make
from e2e.world import World, condition, model_deployment

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(1800)]


@pytest.fixture
def gpu_image(server_image: str, upgraded: Upgraded) -> Iterator[str]:
    """Built, and used by the release for ModelDeployments that ask for GPUs, for the time of one test."""
    make("images-gpu", f"TAG={server_image.rpartition(':')[2]}")
    with upgraded("server.gpuImage.repository=modelpier-server-gpu"):
        yield server_image.replace("/modelpier-server:", "/modelpier-server-gpu:")


def test_without_a_gpu_it_refuses(world: World, namespace: str, digits: dict[str, str], gpu_image: str) -> None:
    world.apply(model_deployment("g", digits["1"], resources={"gpu": 1}), namespace=namespace)
    # Pulling half a gigabyte comes first.
    md = world.wait_told("g", namespace, "ProviderUnavailable", "CUDAExecutionProvider", seconds=300)
    (pod, *_) = world.pods("g", namespace)
    assert pod["spec"]["containers"][0]["image"] == gpu_image
    assert condition(md, "Available")["status"] == "False"
