"""Python beside a model, in the real server: only where the deployment says so, and only what the digest covers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelpier_server.contract import FailureReason, ModelState, Options, PlannedModel
from support import onnx_models
from support.server_process import PlanVolume, ServerProcess, infer_body, plan, server, wait_for

from .test_plans import model, reached

HOOKS = """
import numpy as np
INPUTS = [{"name": "words", "datatype": "BYTES", "shape": [-1]}]
def preprocess(inputs):
    if "" in inputs["words"]:
        raise ValueError("an empty word")
    return {"x": np.array([[len(w), w.count("a"), 0] for w in inputs["words"]], np.float32)}
def postprocess(outputs):
    if outputs["y"][0, 0] > 20:
        raise RuntimeError("too long")
    return outputs
"""


def folder(root: Path) -> Path:
    onnx_models.write(onnx_models.identity(), root / "model.onnx")
    (root / "hooks.py").write_text(HOOKS)
    request = {"inputs": [{"name": "words", "datatype": "BYTES", "shape": [1], "data": ["aha"]}]}
    response = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [3, 2, 0]}]}
    (root / "tests.json").write_text(json.dumps({"tests": [{"request": request, "response": response}]}))
    return root


def ask(running: ServerProcess, word: str) -> tuple[int, object]:
    body = {"inputs": [{"name": "words", "datatype": "BYTES", "shape": [1], "data": [word]}]}
    status, raw = running.call("POST", "/v2/models/m/infer", json.dumps(body).encode())
    answer = json.loads(raw)
    return status, answer["outputs"][0]["data"] if status == 200 else answer["error"]


@pytest.mark.parametrize("flags", [["--hooks"], ["--hooks", "--isolated"]], ids=["here", "isolated"])
def test_hooks_are_part_of_the_model(tmp_path: Path, flags: list[str]) -> None:
    with server(tmp_path / "s", "--model", f"m={folder(tmp_path / 'm')}", *flags) as running:
        running.wait_ready()
        (declared,) = json.loads(running.call("GET", "/v2/models/m")[1])["inputs"]
        assert (declared["name"], declared["datatype"], declared["shape"]) == ("words", "BYTES", [-1])
        assert ask(running, "banana") == (200, [6.0, 3.0, 0.0])
        status, text = ask(running, "")
        assert (status, text) == (400, "the model's preprocess refuses the input: an empty word")
        status, text = ask(running, "b" * 21)
        assert status == 500
        assert text == "postprocess of hooks.py: RuntimeError: too long"
        assert "golden tests passed" in running.output


def test_they_are_off_unless_somebody_says_so(tmp_path: Path) -> None:
    root = folder(tmp_path / "m")
    with server(tmp_path / "s", "--model", f"m={root}", "--no-golden-tests") as running:
        running.wait_ready()
        assert running.call("POST", "/v2/models/m/infer", infer_body())[0] == 200
        assert "is not run: server.hooks is off" in running.output


def test_a_plan_switches_them_on_for_a_folder_and_pins_them(tmp_path: Path, volume: PlanVolume) -> None:
    root = folder(tmp_path / "m")
    options = Options(hooks=True)
    whole = PlannedModel("m", "r1", "1", f"{root.as_uri()}/", options=options)
    alone = model(root / "model.onnx", "r2", name="n", options=options)
    volume.write(plan(1, whole, alone))
    with server(tmp_path / "s", environment=volume.environment) as running:
        wait_for(lambda: running.call("GET", "/v2/health/live")[0] == 200)
        report = running.until(reached(r1=ModelState.LOADED, r2=ModelState.FAILED))
        assert report.models[1].reason is FailureReason.PLAN_INVALID
        assert "uri must name a folder" in report.models[1].message
        digest = report.models[0].digest
        (root / "hooks.py").write_text(HOOKS + "# others'\n")
        pinned = PlannedModel("m", "r3", "1", f"{root.as_uri()}/", digest=digest, options=options)
        running.push(plan(2, alone, pinned))
        report = running.until(reached(r3=ModelState.FAILED))
        assert report.models[1].reason is FailureReason.DIGEST_MISMATCH
