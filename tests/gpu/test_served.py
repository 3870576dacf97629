"""The server as a process with a GPU."""

from __future__ import annotations

import hashlib
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from modelpier_server import contract, runtime
from modelpier_server.contract import Batching, Options, PlannedModel, Provider
from modelpier_server.runtime.providers import CUDA
from support import onnx_models
from support.onnx_models import write
from support.server_process import PlanVolume, plan, server, wait_for


def body(rows: int, seed: int) -> tuple[bytes, np.ndarray]:
    data = np.random.default_rng(seed).normal(size=(rows, 32)).astype(np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 32], "data": data.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode(), data


@pytest.mark.parametrize("graphs", ["0", "1"], ids=["eager", "captured"])
@pytest.mark.parametrize("isolated", [False, True], ids=["here", "isolated"])
def test_requests_of_many_clients(tmp_path: Path, graphs: str, isolated: bool) -> None:
    """Ready on CUDA; rows of all share runs, and each client gets its own."""
    path = write(onnx_models.mlp(), tmp_path / "m.onnx")
    cpu = runtime.load(path, Options())
    providers = (Provider(CUDA, {"enable_cuda_graph": graphs, "use_tf32": "0"}),)
    options = Options(providers=providers, isolated=isolated, batching=Batching(max_rows=32))
    volume = PlanVolume(tmp_path / "plan")
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    volume.write(plan(1, PlannedModel("m", "r1", "1", path.as_uri(), digest, options=options)))
    with server(tmp_path / "s", environment=volume.environment) as running:
        wait_for(lambda: running.call("GET", contract.LIVE_PATH)[0] == 200)
        report = running.until(lambda report: report.models and report.ready, 120)
        assert report.models[0].provider == CUDA

        def client(seed: int) -> None:
            for turn in range(20):
                raw, data = body(1 + (seed + turn) % 5, 100 * seed + turn)
                status, answer = running.call("POST", "/v2/models/m/infer", raw)
                assert status == 200, answer
                got = np.array(json.loads(answer)["outputs"][0]["data"]).reshape(-1, 4)
                assert np.allclose(got, cpu.run({"x": data}, ["y"])[0], atol=1e-4)

        with ThreadPoolExecutor(8) as clients:
            list(clients.map(client, range(8)))
        running.signal(signal.SIGTERM)
        assert running.wait(60) == 0
    cpu.close()
