"""A library of operators beside a model, in the real server: where the deployment names it and the digest covers it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from modelpier_server.contract import FailureReason, ModelState, Options, PlannedModel
from modelpier_server.runtime import extensions
from support import onnx_models
from support.server_process import PlanVolume, plan, server, wait_for

from .test_plans import model, reached

LIBRARY = "ops/custom.so"
WORDS = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["pier"]}]}


def folder(root: Path) -> Path:
    onnx_models.write(onnx_models.tokens(), root / "model.onnx")
    (root / "ops").mkdir()
    shutil.copy(extensions.library(), root / LIBRARY)
    return root


@pytest.mark.parametrize("flags", [[], ["--isolated"]], ids=["here", "isolated"])
def test_a_model_brings_its_operators(tmp_path: Path, flags: list[str]) -> None:
    flags = ["--custom-operators", LIBRARY, *flags]
    with server(tmp_path / "s", "--model", f"m={folder(tmp_path / 'm')}", *flags) as running:
        running.wait_ready()
        status, raw = running.call("POST", "/v2/models/m/infer", json.dumps(WORDS).encode())
        assert (status, json.loads(raw)["outputs"][0]["data"]) == (200, [1, 3, 2])


def test_plans_name_them_for_folders_alone(tmp_path: Path, volume: PlanVolume) -> None:
    root = folder(tmp_path / "m")
    options = Options(custom_operators=(LIBRARY,))
    whole = PlannedModel("m", "r1", "1", f"{root.as_uri()}/", options=options)
    alone = model(root / "model.onnx", "r2", name="n", options=options)
    unnamed = PlannedModel("o", "r3", "1", f"{root.as_uri()}/")
    volume.write(plan(1, whole, alone, unnamed))
    with server(tmp_path / "s", environment=volume.environment) as running:
        wait_for(lambda: running.call("GET", "/v2/health/live")[0] == 200)
        report = running.until(reached(r1=ModelState.LOADED, r2=ModelState.FAILED, r3=ModelState.FAILED))
        assert report.models[1].reason is FailureReason.PLAN_INVALID
        assert "customOperators: uri must name a folder" in report.models[1].message
        assert report.models[2].reason is FailureReason.MODEL_INVALID
        assert "server.customOperators" in report.models[2].message
