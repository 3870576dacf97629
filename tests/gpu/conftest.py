"""A machine with an NVIDIA GPU and onnxruntime-gpu: `make test-gpu`. Elsewhere each test says why it does not run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import onnxruntime as ort
import pytest

from modelpier_server.runtime.providers import CUDA


def _missing() -> str:
    if CUDA not in ort.get_available_providers():
        return "this ONNX Runtime has no CUDA"
    if not list(Path("/dev").glob("nvidia[0-9]*")):
        return "no NVIDIA GPU"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    reason = _missing()
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if reason:
                item.add_marker(pytest.mark.skip(reason=f"optional: {reason}; `make test-gpu` on a machine with one"))


def used_megabytes() -> int:
    """Memory of all GPUs that somebody holds."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    lines = subprocess.run(query, check=True, capture_output=True, text=True, timeout=30).stdout.split()
    return sum(map(int, lines))
