"""Whole clusters for these tests: with their own names, state and registry, beside whatever else runs here."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelpier_cluster.build import programs
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.privilege import CLUSTER_PROGRAMS, missing_packages
from support.clusters import Cluster


def _missing() -> str:
    if sys.platform != "linux":
        return "a cluster needs Linux"
    if os.geteuid():
        return "a cluster needs root: `sudo -E make test-e2e`"
    if packages := missing_packages(CLUSTER_PROGRAMS):
        return f"programs are missing: apt-get install {' '.join(packages)}"
    try:
        programs()
    except ClusterError as error:
        return str(error)
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = _missing() if here else ""
    for item in here:
        item.add_marker(pytest.mark.cluster)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def new_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Cluster]]:
    """Makes the handle of a cluster that is certainly down at the end of the session."""
    made: list[Cluster] = []

    def make(name: str) -> Cluster:
        folder = tmp_path_factory.mktemp(name)
        environment = os.environ | {
            "MODELPIER_CLUSTER_STATE": str(folder / "state"),
            "MODELPIER_CLUSTER_PROGRAMS": str(programs()),
            "MODELPIER_CLUSTER_CACHE": str(folder / "cache"),
        }
        made.append(Cluster(f"{name}-{os.getpid() % 10000}", environment))
        return made[-1]

    yield make
    for cluster in made:
        cluster("down", "--purge")


@pytest.fixture(scope="module")
def cluster(new_cluster: Callable[[str], Cluster]) -> Iterator[Cluster]:
    running = new_cluster("whole")
    running("up", "--nodes", "2", "--node-monitor-grace", "8s")
    yield running
    running("down", "--purge")
