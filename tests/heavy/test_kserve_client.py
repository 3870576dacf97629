"""KServe's own client, in an environment of its own: it brings pandas, Kubernetes' client and a web server (300 MB)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import onnx_models
from support.server_process import server

KSERVE = "kserve==0.21.0"
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / "build" / "kserve-client"
pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def python() -> Path:
    uv = Path(sys.executable).with_name("uv")
    python = ENVIRONMENT / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, ENVIRONMENT], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, KSERVE], check=True)
    return python


@pytest.mark.timeout(600)
def test_kserves_client(tmp_path: Path, python: Path) -> None:
    model = onnx_models.write(onnx_models.identity(), tmp_path / "m.onnx")
    with server(tmp_path / "s", "--model", f"m={model}", grpc=True) as running:
        running.wait_ready()
        program = Path(__file__).with_name("kserve_client.py")
        command = [str(python), str(program), f"http://127.0.0.1:{running.port}", f"127.0.0.1:{running.grpc}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
    assert found["v2"] == [True, True, True, False]
    assert found["json"] == ["m", [[1, 2.5, -3]]]
    assert found["binary"] == ["m", [[1, 2.5, -3]]]
    assert "inputs[0].shape" in found["error"][1]
    assert found["v1"] == [True, True]
    assert found["grpc"] == [True, True, True]
    assert found["grpc typed"] == found["grpc raw"] == ["m", [[1, 2.5, -3]]]
    assert "inputs[0].shape" in found["grpc error"][1]
    assert found["predict"] == {"predictions": [[1, 2.5, -3]]}
