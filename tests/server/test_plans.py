"""A server that follows plans: mounted and pushed, as in a pod."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelpier_server import contract
from modelpier_server.contract import Failure, FailureReason, ModelState, Plan, PlannedModel, Report, Role
from support import onnx_models
from support.server_process import PlanVolume, infer_body, plan, server, wait_for
from support.web import Web

from .conftest import Load

READY = ModelState.READY


def state(report: Report, revision: str) -> ModelState | None:
    return next((m.state for m in report.models if m.revision == revision), None)


def reached(**states: ModelState) -> Callable[[Report], bool]:
    return lambda report: all(state(report, r) is s for r, s in states.items())


def sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def model(path: Path, revision: str = "r1", **fields: Any) -> PlannedModel:
    base = {"name": "m", "version": revision, "uri": path.as_uri(), "digest": sha256(path)}
    return PlannedModel(revision=revision, **{**base, **fields})


def test_nothing_is_served_before_the_plan_pins_the_digest(tmp_path: Path, identity: Path, volume: PlanVolume) -> None:
    volume.write(plan(1, model(identity, digest=None)))
    with server(tmp_path / "s", environment=volume.environment) as running:
        wait_for(lambda: running.call("GET", contract.LIVE_PATH)[0] == 200)
        report = running.until(reached(r1=ModelState.LOADED))
        assert (report.ready, report.models[0].digest) == (False, sha256(identity))
        assert not running.ready
        assert running.call("POST", "/v2/models/m/infer", infer_body())[0] == 503
        status, raw = running.push(plan(2, model(identity)))
        assert (status, Report.decode(raw).ready) == (200, True)
        assert running.ready
        assert running.call("POST", "/v2/models/m/infer", infer_body())[0] == 200
        report = running.report()
        assert [t.name for t in report.models[0].inputs] == ["x"]
        assert set(report.models[0].timings) == {"download", "load", "warm_up"}


def test_pushes_are_judged(tmp_path: Path, identity: Path, volume: PlanVolume) -> None:
    volume.write(plan(5, model(identity)))
    with server(tmp_path / "s", environment=volume.environment) as running:
        wait_for(lambda: running.call("GET", contract.LIVE_PATH)[0] == 200)
        running.until(reached(r1=READY))
        assert running.push(plan(5, model(identity)))[0] == 409
        assert running.push(plan(6), key=bytes(32))[0] == 403
        assert running.push(Plan("another", 6, ()))[0] == 400
        assert running.push(replace(plan(6), pod_set="another"))[0] == 400
        assert "plan.pod_set" in running.report().plan_error
        assert running.call("PUT", contract.PLAN_PATH, b"{}", port=running.admin)[0] == 403
        assert running.call("PUT", contract.PLAN_PATH, b" " * 2_097_153, port=running.admin)[0] == 413
        assert running.call("PUT", contract.PLAN_PATH, plan(9).encode())[0] == 404  # not on the inference port
        report = running.report()
        assert (report.generation, report.ready) == (5, True)
        assert "signature" in report.plan_error
        volume.write(plan(7, model(identity), model(identity, "r2", name="n")))
        report = running.until(reached(r1=READY, r2=READY))
        assert (report.generation, report.plan_error) == (7, "")


def test_a_swap_of_revisions_loses_nothing(tmp_path: Path, identity: Path, volume: PlanVolume, load: Load) -> None:
    """Old, both by weight, new, old unloaded: all under load, without an error."""
    other = onnx_models.write(onnx_models.cumsum_rows(), tmp_path / "input" / "other.onnx")
    old, new = model(identity), model(other, "r2", weight=0, role=Role.CANDIDATE)
    volume.write(plan(1, old))
    with server(tmp_path / "s", environment=volume.environment) as running:
        running.wait_ready()
        traffic = load(running.port, "m", 100, 6)
        running.push(plan(2, old, new))
        running.until(reached(r1=READY, r2=READY))
        running.push(plan(3, replace(old, weight=75), replace(new, weight=25)))
        served = [
            json.loads(running.call("POST", "/v2/models/m/infer", infer_body())[1])["model_version"] for _ in range(8)
        ]
        assert set(served) <= {"r1", "r2"}
        running.push(plan(4, replace(new, weight=100, role=Role.REQUIRED)))
        report = running.until(lambda report: state(report, "r1") is None)
        assert report.ready
        found = traffic.result()
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
    assert found["errors"] == []
    assert set(found["outcomes"]) == {"200"}
    assert set(found["answers"]) == {"r1", "r2"}


def test_a_bad_candidate_is_reported_and_the_pod_stays_ready(
    tmp_path: Path, identity: Path, volume: PlanVolume
) -> None:
    broken = onnx_models.write(b"no model", tmp_path / "input" / "broken.onnx")
    volume.write(plan(1, model(identity), model(broken, "r2", role=Role.CANDIDATE)))
    with server(tmp_path / "s", environment=volume.environment) as running:
        running.wait_ready()
        report = running.until(reached(r1=READY, r2=ModelState.FAILED))
        assert (report.ready, report.models[1].reason) == (True, FailureReason.MODEL_INVALID)
        assert {running.call("POST", "/v2/models/m/infer", infer_body())[0] for _ in range(6)} == {200}


def test_one_file_may_not_bring_data_that_its_digest_does_not_cover(tmp_path: Path, volume: PlanVolume) -> None:
    claim = volume.root / "pvc" / "claim"
    data = b"\0\0\x80\x3f" * 3
    path = onnx_models.external(claim / "m" / "model.onnx", "weights.bin", data)
    (path.parent / "weights.bin").write_bytes(data)
    alone = model(path, uri="pvc://claim/m/model.onnx")
    folder = model(path, "r2", name="n", uri="pvc://claim/m/", digest=None)
    volume.write(plan(1, folder, alone))
    with server(tmp_path / "s", environment=volume.environment) as running:
        wait_for(lambda: running.call("GET", contract.LIVE_PATH)[0] == 200)
        report = running.until(reached(r1=ModelState.FAILED, r2=ModelState.LOADED))
        assert report.models[1].reason is FailureReason.MODEL_INVALID


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"digest": "sha256:" + "0" * 64}, FailureReason.DIGEST_MISMATCH),
        ({"uri": "file:///nowhere.onnx"}, FailureReason.MODEL_NOT_FOUND),
        ({"uri": "gopher://x/y"}, FailureReason.PLAN_INVALID),
        ({"uri": "WEB/forbidden.onnx"}, FailureReason.DOWNLOAD_FORBIDDEN),
        ({"uri": "WEB/m.onnx", "credentials": "absent"}, FailureReason.DOWNLOAD_FORBIDDEN),
        ({"uri": "WEB/m.onnx"}, FailureReason.DISK_FULL),
    ],
)
def test_what_is_required_and_fails_ends_in_a_termination_message(
    tmp_path: Path, identity: Path, volume: PlanVolume, web: Web, fault: dict[str, str], reason: FailureReason
) -> None:
    web.files["/m.onnx"] = bytes(2_000_000)
    web.fault = lambda seen: 403 if "forbidden" in seen.path else None
    planned = model(identity, **{k: v.replace("WEB", web.url) for k, v in fault.items()})
    volume.write(plan(1, planned))
    environment = {**volume.environment, contract.ENV_MODEL_STORAGE: "1000000"}
    with server(tmp_path / "s", environment=environment) as running:
        assert running.wait() == contract.EXIT_MODEL_FAILED
    failure = Failure.decode((volume.root / "termination-log").read_bytes())
    assert (failure.reason, failure.revision) == (reason, "r1")
    assert failure.message


def test_a_pod_without_a_plan_waits_unready(tmp_path: Path, identity: Path, volume: PlanVolume) -> None:
    with server(tmp_path / "s", environment=volume.environment) as running:
        wait_for(lambda: running.call("GET", contract.LIVE_PATH)[0] == 200)
        report = running.until(lambda report: report.plan_error)
        assert (report.ready, report.generation) == (False, 0)
        assert not running.ready
        volume.root.mkdir(exist_ok=True)
        volume.write(plan(1, model(identity)))
        running.until(reached(r1=READY))


def test_a_restarted_container_does_not_download_again(tmp_path: Path, volume: PlanVolume, web: Web) -> None:
    data = onnx_models.mlp()
    web.files["/m.onnx"] = data
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    volume.write(plan(1, PlannedModel("m", "r1", "1", f"{web.url}/m.onnx", digest)))
    for requests in (1, 0):
        web.seen.clear()
        with server(tmp_path / "s", environment=volume.environment) as running:
            running.wait_ready()
            running.signal(signal.SIGKILL)
            running.wait()
        assert len(web.seen) == requests
