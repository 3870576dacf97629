"""Models that bring examples, in the real server: they serve once these come out, and not before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelpier_server import contract
from modelpier_server.contract import Failure, FailureReason, GoldenTests, ModelState, Options, PlannedModel, Role
from support import onnx_models
from support.golden_models import data_set, fp32, request_file
from support.server_process import PlanVolume, infer_body, plan, server, wait_for

from .test_plans import model, reached

GIVEN, WRONG = fp32([1, 2, 3]), fp32([1, 2, 4])


def folder(root: Path, expected: object = GIVEN) -> Path:
    onnx_models.write(onnx_models.identity(), root / "model.onnx")
    data_set(root, {"x": GIVEN}, {"y": expected})  # type: ignore[dict-item]
    request_file(root, ("again", {"x": GIVEN}, {"y": GIVEN}))
    return root


def planned(root: Path, revision: str = "r1", digest: str | None = None, **fields: object) -> PlannedModel:
    base = {"name": "m", "version": revision, "uri": f"{root.as_uri()}/", "digest": digest}
    return PlannedModel(revision=revision, **{**base, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("isolated", [False, True])
def test_a_candidate_whose_examples_do_not_come_out_is_left_out(
    tmp_path: Path, identity: Path, volume: PlanVolume, isolated: bool
) -> None:
    good, bad = folder(tmp_path / "good"), folder(tmp_path / "bad", WRONG)
    options = Options(isolated=isolated)
    candidates = [
        planned(good, "r2", name="n", role=Role.CANDIDATE, options=options),
        planned(bad, "r3", role=Role.CANDIDATE, options=options),
        planned(bad, "r4", role=Role.CANDIDATE, options=Options(golden_tests=GoldenTests(absolute=1.5))),
        planned(bad, "r5", role=Role.CANDIDATE, options=Options(golden_tests=GoldenTests(enabled=False))),
    ]
    volume.write(plan(1, model(identity), *candidates))
    with server(tmp_path / "s", environment=volume.environment) as running:
        running.wait_ready()
        loaded = ModelState.LOADED
        report = running.until(reached(r2=loaded, r3=ModelState.FAILED, r4=loaded, r5=loaded))
        by_revision = {found.revision: found for found in report.models}
        assert by_revision["r2"].timings["golden_tests"] >= 0
        assert "golden_tests" not in by_revision["r5"].timings
        failed = by_revision["r3"]
        assert failed.reason is FailureReason.GOLDEN_TEST_FAILED
        assert "golden test 'test_data_set_0': output 'y' differs in 1 of 3 elements: by 1 at most" in failed.message


def test_what_is_required_and_fails_ends_the_server(tmp_path: Path, volume: PlanVolume) -> None:
    volume.write(plan(1, planned(folder(tmp_path / "m", WRONG))))
    with server(tmp_path / "s", environment=volume.environment) as running:
        assert running.wait() == contract.EXIT_MODEL_FAILED
    failure = Failure.decode((volume.root / "termination-log").read_bytes())
    assert failure.reason is FailureReason.GOLDEN_TEST_FAILED


def test_a_laptop_can_switch_them_off(tmp_path: Path) -> None:
    bad = folder(tmp_path / "m", WRONG)
    with server(tmp_path / "s", "--model", f"m={bad}") as running:
        assert running.wait() == contract.EXIT_MODEL_FAILED
        assert "GoldenTestFailed" in running.output
    with server(tmp_path / "s", "--model", f"m={bad}", "--no-golden-tests") as running:
        running.wait_ready()
        wait_for(lambda: running.call("POST", "/v2/models/m/infer", infer_body())[0] == 200)
        assert json.loads(running.call("GET", "/v2/models/m")[1])["name"] == "m"
