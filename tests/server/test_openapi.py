"""schemathesis on the OpenAPI document of the real server: whatever fits it, or just does not, is answered as it says.

Deterministic, a bounded number of requests: about 2,000.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import onnx_models
from support.server_process import server

EXAMPLES = 8
"""Per route, on top of the cases that cover each keyword of a schema."""


@pytest.mark.timeout(300)
def test_the_document_is_true(tmp_path: Path) -> None:
    models = {
        "add": onnx_models.add("INT32"),
        "text": onnx_models.identity("BYTES", ("n", 2)),
        "m": onnx_models.identity(),
        "half": onnx_models.identity("FP16", (2, 3)),
    }
    flags = []
    for name, model in models.items():
        flags += ["--model", f"{name}={onnx_models.write(model, tmp_path / f'{name}.onnx')}"]
    with server(tmp_path / "s", *flags) as running:
        running.wait_ready()
        url = f"http://127.0.0.1:{running.port}/openapi.json"
        config = Path(__file__).with_name("schemathesis.toml")
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", url, "--no-color",
                   "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES),
                   "--generation-deterministic"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=280)
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        cases = re.search(r"(\d+) generated", done.stdout)
        assert cases is not None
        assert int(cases[1]) > 1000
        assert running.ready
        assert "internal error" not in running.output
