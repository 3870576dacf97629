"""Shadows of a real server: what they find out, and that nobody who calls it notices them."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper, numpy_helper

from modelpier_server.contract import FailureReason, ModelState, Options, Role
from support import onnx_models
from support.server_process import PlanVolume, ServerProcess, plan, server, wait_for

from .test_plans import model, reached

VALUES = np.random.default_rng(0).normal(size=(20, 32)).astype(np.float32)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    old = onnx_models.write(onnx_models.mlp(seed=0), tmp_path / "input" / "old.onnx")
    return old, onnx_models.write(onnx_models.mlp(seed=1), tmp_path / "input" / "new.onnx")


def outputs(path: Path) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": VALUES})[0])


def body(values: np.ndarray) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": list(values.shape), "data": values.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def shadows(running: ServerProcess) -> list[dict[str, Any]]:
    return list(json.loads(running.call("GET", "/v2/models/m/shadow")[1])["shadows"])


def compared(running: ServerProcess) -> int:
    return sum(found["outcomes"]["compared"] for found in shadows(running))


def send_all(running: ServerProcess) -> None:
    """By every way in: infer, instances, gRPC."""
    for i in range(10):
        status, answer = running.call("POST", "/v2/models/m/infer", body(VALUES[i : i + 1]))
        assert status == 200
        assert json.loads(answer)["model_version"] != "shadow"
    rows = json.dumps({"instances": VALUES[10:15].tolist()}).encode()
    assert running.call("POST", "/v1/models/m:predict", rows)[0] == 200
    with triton.InferenceServerClient(f"127.0.0.1:{running.grpc}") as client:
        tensor = triton.InferInput("x", (5, 32), "FP32")
        tensor.set_data_from_numpy(VALUES[15:])
        client.infer("m", [tensor])


def test_differences_are_those_that_numpy_finds(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    flags = ("--model", f"m={pair[0]}", "--shadow", f"m={pair[1]}")
    with server(tmp_path / "s", *flags, grpc=True) as running:
        running.wait_ready()
        wait_for(lambda: shadows(running))
        send_all(running)
        wait_for(lambda: compared(running) == 12)
        (found,) = shadows(running)
        metrics = running.call("GET", "/metrics")[1].decode()
        versions = json.loads(running.call("GET", "/v2/models/m")[1])["versions"]
        assert running.call("POST", "/v2/models/m/versions/shadow/infer", body(VALUES))[0] == 404
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
    a, b = outputs(pair[0]).astype(float), outputs(pair[1]).astype(float)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    (output,) = found["outputs"]
    assert (found["shadow_version"], found["version"], versions) == ("shadow", "1", ["1"])
    assert output["max_absolute"] == pytest.approx(np.abs(a - b).max(), rel=1e-4)
    assert output["mean_absolute"] == pytest.approx(np.abs(a - b).mean(), rel=1e-4)
    assert output["max_relative"] == pytest.approx((np.abs(a - b) / np.maximum(abs(a), abs(b))).max(), rel=1e-4)
    assert output["least_cosine"] == pytest.approx(cosines.min(), rel=1e-4)
    assert output["mean_cosine"] == pytest.approx(cosines.mean(), rel=1e-4)
    assert (output["rows"], output["elements"], output["top1_rows"]) == (20, 80, 20)
    assert output["top1_agreed"] == np.count_nonzero(a.argmax(1) == b.argmax(1))
    labels = 'model="m",version="1",shadow_version="shadow"'
    assert f'modelpier_shadow_requests_total{{{labels},outcome="compared"}} 12' in metrics
    assert 'nv_inference_request_success{model="m",version="1"} 12' in metrics
    assert 'version="shadow"} ' not in "\n".join(line for line in metrics.splitlines() if line.startswith("nv_"))


@pytest.mark.parametrize("isolated", [False, True])
def test_in_a_plan_and_in_its_report(
    tmp_path: Path, pair: tuple[Path, Path], volume: PlanVolume, *, isolated: bool
) -> None:
    old = model(pair[0])
    new = model(pair[1], "r2", role=Role.SHADOW, options=Options(isolated=isolated))
    volume.write(plan(1, old, new))
    with server(tmp_path / "s", environment=volume.environment) as running:
        running.wait_ready()
        running.until(reached(r1=ModelState.READY, r2=ModelState.READY))
        send_all(running)
        wait_for(lambda: compared(running) == 12)
        (found,) = next(report for report in running.report().models if report.revision == "r2").shadow
        assert (found.version, found.outcomes["compared"], found.outputs[0].rows) == ("r1", 12, 20)
        running.push(plan(2, old, replace(new, role=Role.CANDIDATE, weight=100)))  # promoted without another load
        answers = [running.call("POST", "/v2/models/m/infer", body(VALUES[:1]))[1] for _ in range(4)]
        assert {json.loads(answer)["model_version"] for answer in answers} == {"r1", "r2"}
        assert shadows(running) == []
        running.push(plan(3, old))
        running.until(lambda report: len(report.models) == 1)


def test_a_shadow_that_cannot_be_loaded_leaves_the_server_ready(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    broken = onnx_models.write(b"no model", tmp_path / "input" / "broken.onnx")
    with server(tmp_path / "s", "--model", f"m={pair[0]}", "--shadow", f"m={broken}") as running:
        running.wait_ready()
        wait_for(lambda: str(FailureReason.MODEL_INVALID) in running.output)
        assert running.ready
        assert running.call("POST", "/v2/models/m/infer", body(VALUES))[0] == 200
        assert shadows(running) == []


def sum_of(rows: int) -> bytes:
    """y = x + k, at once: what `counting` counts up to."""
    nodes = [
        helper.make_node("Cast", ["k"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["f", "column"], ["c"]),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    column = numpy_helper.from_array(np.array([-1, 1], np.int64), "column")
    inputs: list[onnx_models.Tensor] = [("x", "FP32", ("n", rows)), ("k", "INT64", ("n",))]
    return onnx_models.build(nodes, inputs, [("y", "FP32", ("n", rows))], [column])


def test_a_shadow_that_never_ends_is_no_matter_of_callers(tmp_path: Path) -> None:
    """It hangs in its first run: all requests are answered, what cannot wait is dropped, the end is not held up."""
    quick = onnx_models.write(sum_of(3), tmp_path / "input" / "quick.onnx")
    endless = onnx_models.write(onnx_models.counting(), tmp_path / "input" / "endless.onnx")
    tensors = [
        {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]},
        {"name": "k", "datatype": "INT64", "shape": [1], "data": [1 << 50]},
    ]
    request = json.dumps({"inputs": tensors}).encode()
    with server(tmp_path / "s", "--model", f"m={quick}", "--shadow", f"m={endless}") as running:
        running.wait_ready()
        wait_for(lambda: shadows(running))
        for _ in range(300):
            assert running.call("POST", "/v2/models/m/infer", request)[0] == 200
        (found,) = shadows(running)
        assert found["outcomes"]["compared"] == 0
        assert found["outcomes"]["dropped"] >= 300 - 256
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
