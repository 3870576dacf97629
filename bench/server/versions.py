"""What took part: versions of everything, and the machine. Used by __main__."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from bench.server.cores import Cores
from bench.server.environments import PEERS

OURS = ("onnxruntime", "numpy", "uvloop", "httptools", "orjson", "msgspec", "grpcio")
PACKAGES = {
    "fastapi": ("fastapi", "uvicorn"),
    "mlserver": ("mlserver",),
    "kserve": ("kserve",),
    "bentoml": ("bentoml",),
    "litserve": ("litserve",),
    "pytriton": ("nvidia-pytriton",),
    "ray": ("ray",),
}


def pinned(requirements: str) -> dict[str, str]:
    """Versions by package, from the text of a requirements file."""
    lines = (line.split() for line in requirements.splitlines() if "==" in line)
    pairs = (words[0].partition("==") for words in lines)
    return {name.partition("[")[0]: found for name, _, found in pairs}


def software() -> str:
    ours = ", ".join(f"{name} {version(name)}" for name in OURS)
    peers = []
    for name, packages in PACKAGES.items():
        found = pinned((PEERS / f"{name}.txt").read_text())
        peers += [f"{package} {found[package]}" for package in packages]
    return f"Python {platform.python_version()}, {ours}; {', '.join(peers)}"


def machine(cores: Cores) -> str:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    share = f"{len(cores.server)} for the server, {'one' if cores.client is not None else 'none'} for the generator"
    return f"{_processor()}, {os.cpu_count()} cores ({share}), {total:.0f} GiB, Linux {platform.release()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
