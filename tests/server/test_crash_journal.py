"""A model that takes the server's process down, and the process that a kubelet starts on the same volume."""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import replace
from pathlib import Path

from modelpier_server import contract
from modelpier_server.contract import Failure, FailureReason, ModelState, Options, Role
from modelpier_server.lifecycle.bringup import MOST_RELOADS
from support import onnx_models
from support.server_process import PlanVolume, ServerProcess, infer_body, plan, server, wait_for

from .test_plans import model, reached

READY = ModelState.READY


def kill(running: ServerProcess) -> None:
    running.signal(signal.SIGKILL)
    running.wait()


def test_a_candidate_that_killed_the_process_is_left_out_and_the_rest_serves(
    tmp_path: Path, identity: Path, volume: PlanVolume
) -> None:
    endless = onnx_models.write(onnx_models.endless(), tmp_path / "input" / "endless.onnx")
    stable, candidate = model(identity), model(endless, "r2", weight=10, role=Role.CANDIDATE)
    volume.write(plan(1, stable, candidate))
    with server(tmp_path / "s", environment=volume.environment) as running:
        wait_for(lambda: running.call("GET", contract.LIVE_PATH)[0] == 200)
        running.until(reached(r1=READY, r2=ModelState.WARMING))
        wait_for(lambda: b'"warming"' in (tmp_path / "s" / "models" / "journal" / "journal.json").read_bytes())
        kill(running)
    with server(tmp_path / "s", environment=volume.environment) as running:
        running.wait_ready()
        report = running.until(reached(r1=READY, r2=ModelState.FAILED))
        assert report.models[1].reason is FailureReason.MODEL_CRASHED
        assert "while it warmed the model up" in report.models[1].message
        assert {running.call("POST", "/v2/models/m/infer", infer_body())[0] for _ in range(20)} == {200}
        running.push(plan(2, stable, replace(candidate, options=Options(threads=1))))
        running.until(reached(r1=READY, r2=ModelState.WARMING))
        running.signal(signal.SIGTERM)
        assert running.wait(60) == 0
    with server(tmp_path / "s", environment=volume.environment) as running:  # the mounted plan lags behind
        running.wait_ready()
        running.until(reached(r2=ModelState.FAILED))
        running.push(plan(2, stable, replace(candidate, options=Options(threads=1))))
        running.until(reached(r2=ModelState.WARMING))


def test_what_is_required_is_tried_again_and_then_reported(tmp_path: Path, volume: PlanVolume) -> None:
    endless = onnx_models.write(onnx_models.endless(), tmp_path / "input" / "endless.onnx")
    volume.write(plan(1, model(endless)))
    for _ in range(MOST_RELOADS + 1):
        with server(tmp_path / "s", environment=volume.environment) as running:
            wait_for(lambda: running.call("GET", contract.LIVE_PATH)[0] == 200)
            running.until(reached(r1=ModelState.WARMING))
            kill(running)
    with server(tmp_path / "s", environment=volume.environment) as running:
        assert running.wait() == contract.EXIT_MODEL_FAILED
    failure = Failure.decode((volume.root / "termination-log").read_bytes())
    assert (failure.reason, failure.revision) == (FailureReason.MODEL_CRASHED, "r1")
    assert f"({MOST_RELOADS + 1} times)" in failure.message


def test_a_poisonous_request_takes_a_candidate_out_and_an_end_without_one_does_not(
    tmp_path: Path, identity: Path, volume: PlanVolume
) -> None:
    counting = onnx_models.write(onnx_models.counting(), tmp_path / "input" / "counting.onnx")
    stable, candidate = model(identity), model(counting, "r2", name="c", role=Role.CANDIDATE)
    volume.write(plan(1, stable, candidate))
    with server(tmp_path / "s", environment=volume.environment) as running:
        wait_for(lambda: running.call("GET", contract.LIVE_PATH)[0] == 200)
        running.until(reached(r1=READY, r2=READY))
        assert running.call("POST", "/v2/models/c/infer", rounds(3))[0] == 200
        kill(running)
    with server(tmp_path / "s", environment=volume.environment) as running:
        wait_for(lambda: running.call("GET", contract.LIVE_PATH)[0] == 200)
        running.until(reached(r1=READY, r2=READY))
        caller = threading.Thread(target=lambda: running.call("POST", "/v2/models/c/infer", rounds(1 << 60)))
        caller.start()
        marks = tmp_path / "s" / "models" / "journal" / "active"
        wait_for(lambda: any(marks.read_bytes()))
        kill(running)
        caller.join(30)
    with server(tmp_path / "s", environment=volume.environment) as running:
        running.wait_ready()
        report = running.until(reached(r1=READY, r2=ModelState.FAILED))
        assert report.models[1].reason is FailureReason.MODEL_CRASHED
        assert "ended while it ran the model" in report.models[1].message


def rounds(k: int) -> bytes:
    inputs = [
        {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [0, 0, 0]},
        {"name": "k", "datatype": "INT64", "shape": [1], "data": [k]},
    ]
    return json.dumps({"inputs": inputs}).encode()
