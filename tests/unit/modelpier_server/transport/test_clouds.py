"""SageMaker's and Vertex AI's routes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from modelpier_server.transport import Extras, VertexRoutes
from support import onnx_models
from support.serving import Client, Running, planned, running, servable, tensor

BINARY = "application/vnd.sagemaker-triton.binary+json"
VERTEX = VertexRoutes("/v1/endpoints/7/deployedModels/8", "/v1/endpoints/7/deployedModels/8:predict")
ROW = json.dumps({"instances": [[1, 2, 3]]}).encode()


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(servable(onnx_models.identity(), tmp_path), extras=Extras(vertex=VERTEX)) as state:
        yield state


@pytest.fixture
async def client(state: Running) -> Client:
    return await state.client()


@pytest.mark.parametrize("path", ["/ping", VERTEX.health])
async def test_health(state: Running, client: Client, path: str) -> None:
    assert (await client.request("GET", path)).status == 200
    state.shelf.draining = True
    assert (await client.request("GET", path)).status == 503
    state.shelf.draining, state.shelf.ready = False, False
    assert (await client.request("GET", path)).status == 503


@pytest.mark.parametrize("path", ["/invocations", VERTEX.predict])
@pytest.mark.parametrize("content_type", [None, "application/json", "application/json; charset=utf-8"])
async def test_rows(client: Client, path: str, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await client.request("POST", path, ROW, headers)
    assert answer.json == {"predictions": [[1, 2, 3]]}


@pytest.mark.parametrize("path", ["/invocations", VERTEX.predict])
async def test_the_open_inference_protocol(client: Client, path: str) -> None:
    body = json.dumps({"id": "7", "inputs": [tensor([1, 2, 3])]}).encode()
    answer = await client.request("POST", path, body)
    assert answer.json["id"] == "7"
    assert answer.json["outputs"][0]["data"] == [1, 2, 3]


async def test_columns_are_no_tensors(client: Client) -> None:
    answer = await client.request("POST", "/invocations", json.dumps({"inputs": [[1, 2, 3]]}).encode())
    assert answer.json == {"predictions": [[1, 2, 3]]}


async def test_binary_tensors_as_tritons_container_has_them(client: Client) -> None:
    data = np.array([[1, np.nan, 3]], "<f4").tobytes()
    entry = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
    message = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": f"{BINARY};json-header-size={len(message)}"}
    answer = await client.request("POST", "/invocations", message + data, headers)
    assert answer.status == 200
    media, _, length = answer.headers["content-type"].partition(";json-header-size=")
    assert media == BINARY
    assert json.loads(answer.body[: int(length)])["outputs"][0]["parameters"] == {"binary_data_size": 12}
    assert answer.body[int(length) :] == data


@pytest.mark.parametrize(
    ("body", "headers", "status", "text"),
    [
        (b"1,2,3", {"Content-Type": "text/csv"}, 415, "text/csv"),
        (ROW, {"Content-Type": f"{BINARY};json-header-size=9999"}, 400, "9999 is not within"),
        (ROW, {"Content-Type": f"{BINARY};json-header-size=x"}, 415, "json-header-size=N"),
        (ROW, {"X-Amzn-SageMaker-Target-Model": "zz"}, 404, "zz"),
        (b"", {}, 400, "request"),
        (b"[]", {}, 400, "object"),
        (b'{"inputs": [{"datatype": "FP32"}]}', {}, 400, "request"),
        (b'{"instances": [[1, 2, NaN]]}', {}, 400, "malformed"),
    ],
)
async def test_wrong_requests(client: Client, body: bytes, headers: dict[str, str], status: int, text: str) -> None:
    answer = await client.request("POST", "/invocations", body, headers)
    assert answer.status == status
    assert text in answer.error


async def test_a_target_among_several_models(tmp_path: Path) -> None:
    models = [servable(onnx_models.identity(), tmp_path, planned(name)) for name in ("a", "b")]
    async with running(*models) as state:
        client = await state.client()
        for target in ("b", "b.tar.gz", "/b.tar.gz"):
            headers = {"X-Amzn-SageMaker-Target-Model": target}
            assert (await client.request("POST", "/invocations", ROW, headers)).status == 200
        answer = await client.request("POST", "/invocations", ROW)
        assert (answer.status, "a, b" in answer.error) == (400, True)
        assert (await client.request("GET", VERTEX.health)).status == 404
        served = state.shelf.servables
        assert (served["a"]._metrics.success, served["b"]._metrics.success) == (0, 3)


async def test_no_model_at_all() -> None:
    async with running() as state:
        assert (await (await state.client()).request("POST", "/invocations", ROW)).status == 404
