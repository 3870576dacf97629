"""Where tests find the real Helm, and how they run it: with folders of its own, whatever the user has set up."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from modelpier_cluster.build import TOOLS, programs
from modelpier_cluster.errors import ClusterError

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "modelpier"
REGISTRY = ("--values", str(Path(__file__).with_name("registry.yaml")))
"""The one value without a default; a test's own values come later and win."""
TEMPLATE = ("template", "modelpier", str(CHART), "--kube-version", "1.33.0")
"""For the oldest Kubernetes that the chart is for. Without a cluster Helm would take the version that it was made for
itself, which is too old for the chart where Helm is."""
MISSING = "no helm: `make cluster-build` builds one, or set MODELPIER_HELM"


def find_helm() -> str | None:
    """The one named by MODELPIER_HELM, in PATH, or built for the local cluster."""
    if found := os.environ.get("MODELPIER_HELM") or shutil.which("helm"):
        return found
    try:
        return str(programs([TOOLS]) / "helm")
    except ClusterError:
        return None


@dataclass(frozen=True)
class Helm:
    program: str
    home: Path
    kubeconfig: str = ""
    """Empty: no cluster, whatever the environment says."""

    @property
    def major(self) -> int:
        return int(self("version", "--template", "{{.Version}}").lstrip("v").partition(".")[0])

    def template(self, *arguments: str) -> str:
        """What an installation would apply."""
        return self(*TEMPLATE, *REGISTRY, *arguments)

    def run(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        folders = {f"HELM_{kind}_HOME": str(self.home / kind) for kind in ("CONFIG", "CACHE", "DATA")}
        env = os.environ | folders | {"KUBECONFIG": self.kubeconfig or str(self.home / "none")}
        command = [self.program, *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, check=False)

    def __call__(self, *arguments: str, timeout: float = 60) -> str:
        """Standard output; fails the test with Helm's error."""
        done = self.run(*arguments, timeout=timeout)
        assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr}"
        return done.stdout
