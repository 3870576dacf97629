"""Builds go-controller/ once per content into the user's cache, with the Go that the local cluster is built with."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from modelpier_cluster.build import toolchain
from modelpier_cluster.go_toolchain import build_environment, install_go
from modelpier_cluster.paths import cache_root
from modelpier_cluster.progress import Progress

SOURCES = Path(__file__).parent / "go-controller"
BUILD_SECONDS = 1800.0


class BuildError(RuntimeError):
    """Go could not build the controller."""


def content_key(sources: Path, go_version: str) -> str:
    """Sixteen hexadecimal digits that change with any source file and with Go."""
    digest = hashlib.sha256(go_version.encode())
    for path in sorted(p for p in sources.rglob("*") if p.suffix == ".go" or p.name in {"go.mod", "go.sum"}):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"\0{path.relative_to(sources)}\0{content}".encode())
    return digest.hexdigest()[:16]


def controller(progress: Progress) -> Path:
    """The built program; raises BuildError when the build fails."""
    go = toolchain()
    program = cache_root() / "programs" / f"bench-controller-{content_key(SOURCES, go.version)}"
    if program.exists():
        return program
    progress.say("building the Go controller")
    program.parent.mkdir(parents=True, exist_ok=True)
    partial = program.with_name(f".{program.name}.{os.getpid()}")
    command = [go.path or install_go(progress), "build", "-trimpath", "-ldflags", "-s -w", "-o", str(partial), "."]
    result = subprocess.run(command, cwd=SOURCES, env=build_environment(), timeout=BUILD_SECONDS, check=False)
    if result.returncode:
        raise BuildError(f"{' '.join(command)} failed in {SOURCES}")
    partial.replace(program)
    progress.say("built the Go controller")
    return program
