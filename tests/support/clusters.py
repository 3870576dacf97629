"""The command line of the local cluster, for the tests that start clusters of their own."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpier_cluster.build import SOURCES, programs

ENTRY = str(SOURCES / "cluster.py")


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
