"""Health, metadata and metrics."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelpier_server.telemetry import Metrics
from support import onnx_models
from support.serving import Client, Running, planned, running, servable, tensor


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[Running]:
    metrics = Metrics()
    models = [
        servable(onnx_models.add("INT32"), tmp_path, planned("add", version="3"), metrics),
        servable(onnx_models.mean_of_all(), tmp_path, planned("mean"), metrics),
    ]
    async with running(*models, metrics=metrics) as state:
        yield state


@pytest.fixture
async def client(state: Running) -> Client:
    return await state.client()


async def test_server_metadata(client: Client) -> None:
    answer = await client.request("GET", "/v2")
    assert answer.json["name"] == "modelpier"
    assert {"binary_tensor_data", "statistics", "model_configuration"} <= set(answer.json["extensions"])
    assert (await client.request("GET", "/v2/models")).json == {"models": ["add", "mean"]}


@pytest.mark.parametrize("path", ["/v2/models/add", "/v2/models/add/versions/3"])
async def test_model_metadata(state: Running, client: Client, path: str) -> None:
    answer = await client.request("GET", path)
    assert answer.json == {
        "name": "add",
        "versions": ["3"],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": "a", "datatype": "INT32", "shape": [-1, 3]},
            {"name": "b", "datatype": "INT32", "shape": [-1, 3]},
        ],
        "parameters": {"batching": state.shelf.servables["add"].batching},
        "outputs": [
            {"name": "sum", "datatype": "INT32", "shape": [-1, 3]},
            {"name": "difference", "datatype": "INT32", "shape": [-1, 3]},
        ],
    }


async def test_models_that_are_not_there(state: Running, client: Client) -> None:
    state.shelf.pending.add("later")
    for suffix in ("", "/ready"):
        assert (await client.request("GET", f"/v2/models/zz{suffix}")).status == 404
        assert (await client.request("GET", f"/v2/models/add/versions/9{suffix}")).status == 404
        assert (await client.request("GET", f"/v2/models/later{suffix}")).status == 503
    assert (await client.request("GET", "/v2/models/add/ready")).json == {"name": "add", "ready": True}


async def test_whether_a_model_is_ready_takes_no_turn_of_the_weights(state: Running, client: Client) -> None:
    for path in ("/v2/models/add/ready", "/v2/models/add/versions/3/ready", "/v2/models/add"):
        assert (await client.request("GET", path)).status == 200
    assert state.shelf.found == 0


async def test_health(state: Running, client: Client) -> None:
    async def health() -> tuple[int, int]:
        live = await client.request("GET", "/v2/health/live")
        ready = await client.request("GET", "/v2/health/ready")
        return live.status, ready.status

    assert await health() == (200, 200)
    state.shelf.draining = True
    assert await health() == (200, 503)
    state.shelf.draining, state.shelf.ready = False, False
    assert await health() == (200, 503)
    state.shelf.live = False
    assert await health() == (503, 503)


def sample(text: str, name: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return float(line.rsplit(" ", 1)[1])


async def test_metrics(client: Client) -> None:
    rows = json.dumps({"inputs": [tensor([[1, 2, 3]] * 2, shape=[2, 3])]}).encode()
    wrong = json.dumps({"inputs": []}).encode()
    assert (await client.request("POST", "/v2/models/mean/infer", rows)).status == 200
    assert (await client.request("POST", "/v2/models/mean/infer", wrong)).status == 400
    answer = await client.request("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.body.decode()
    assert sample(text, 'nv_inference_request_success{model="mean",version="1"}') == 1
    assert sample(text, 'nv_inference_request_failure{model="mean",version="1",reason="OTHER"}') == 1
    assert sample(text, 'nv_inference_exec_count{model="mean",version="1"}') == 1
    assert sample(text, 'nv_inference_pending_request_count{model="mean",version="1"}') == 0
    assert sample(text, 'nv_inference_request_success{model="add",version="3"}') == 0
    request = sample(text, 'nv_inference_request_duration_us{model="mean",version="1"}')
    queue = sample(text, 'nv_inference_queue_duration_us{model="mean",version="1"}')
    infer = sample(text, 'nv_inference_compute_infer_duration_us{model="mean",version="1"}')
    assert 0 < infer <= request
    assert 0 <= queue <= request
    assert sample(text, 'modelpier_http_responses_total{code="400"}') == 1
    for line in text.splitlines():
        assert line.startswith("# ") or len(line.rsplit(" ", 1)) == 2
