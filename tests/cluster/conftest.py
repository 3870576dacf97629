"""Whole clusters for these tests: with their own names, state and registry, beside whatever else runs here."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelpier_cluster.build import SOURCES, programs
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.privilege import CLUSTER_PROGRAMS, missing_packages

ENTRY = str(SOURCES / "cluster.py")


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


@dataclass(frozen=True)
class Cluster:
    """The command line, for one cluster."""

    name: str
    environment: dict[str, str]

    def __call__(self, verb: str, *arguments: str, check: bool = True) -> str:
        command = [sys.executable, ENTRY, verb, "--name", self.name, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=240, env=self.environment, check=False)
        assert not check or result.returncode == 0, result.stderr
        return result.stdout

    @property
    def folder(self) -> Path:
        return Path(self.environment["MODELPIER_CLUSTER_STATE"]) / self.name

    def status(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self("status", "--output", "json", check=False))
        return report

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        kubeconfig = self.folder / "admin.kubeconfig"
        command = [str(programs() / "kubectl"), f"--kubeconfig={kubeconfig}", "--request-timeout=20s", *arguments]
        result = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        assert not check or result.returncode == 0, result.stderr
        return result.stdout


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
