"""Inference over HTTP, end to end within one process."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from support import onnx_models
from support.serving import Client, Running, planned, running, servable, tensor


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[Running]:
    models = {
        "m": onnx_models.identity(),
        "add": onnx_models.add(),
        "half": onnx_models.identity("FP16"),
        "brain": onnx_models.identity("BF16"),
        "text": onnx_models.identity("BYTES"),
        "inverse": onnx_models.reciprocal(),
        "gather": onnx_models.gather(),
    }
    async with running(*(servable(model, tmp_path, planned(name)) for name, model in models.items())) as state:
        yield state


@pytest.fixture
async def client(state: Running) -> Client:
    return await state.client()


async def test_json_in_json_out_with_id(client: Client) -> None:
    answer = await client.infer({"id": "7", "inputs": [tensor([1, 2.5, -3])]})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {
        "model_name": "m",
        "model_version": "1",
        "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.5, -3.0]}],
    }


async def test_nested_and_flat_data_are_the_same(client: Client) -> None:
    nested = await client.infer({"inputs": [tensor([[1, 2, 3], [4, 5, 6]], shape=[2, 3])]})
    flat = await client.infer({"inputs": [tensor([1, 2, 3, 4, 5, 6], shape=[2, 3])]})
    assert nested.json == flat.json
    assert "id" not in nested.json


async def test_versions(client: Client) -> None:
    body = json.dumps({"inputs": [tensor([1, 2, 3])]}).encode()
    assert (await client.request("POST", "/v2/models/m/versions/1/infer", body)).status == 200
    assert (await client.request("POST", "/v2/models/m/versions/9/infer", body)).status == 404


async def test_outputs_are_selected_and_ordered(client: Client) -> None:
    inputs = [tensor([1, 2, 3], name="a"), tensor([1, 1, 1], name="b")]
    answer = await client.infer({"inputs": inputs, "outputs": [{"name": "difference"}]}, "add")
    assert [o["name"] for o in answer.json["outputs"]] == ["difference"]
    answer = await client.infer({"inputs": inputs, "outputs": [{"name": "difference"}, {"name": "sum"}]}, "add")
    assert [(o["name"], o["data"]) for o in answer.json["outputs"]] == [("difference", [0, 1, 2]), ("sum", [2, 3, 4])]


async def test_binary_both_ways(client: Client) -> None:
    data = np.array([[1, 2, 3]], "<f4").tobytes()
    entry = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
    message = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    answer = await client.infer(message + data, headers={"Inference-Header-Content-Length": len(message)})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    header = json.loads(answer.body[:length])
    assert header["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}
    ]
    assert answer.body[length:] == data


async def test_binary_per_output(client: Client) -> None:
    message = {
        "inputs": [tensor([1, 2, 3], name="a"), tensor([1, 1, 1], name="b")],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "sum"}, {"name": "difference", "parameters": {"binary_data": False}}],
    }
    answer = await client.infer(message, "add")
    length = int(answer.headers["inference-header-content-length"])
    first, second = json.loads(answer.body[:length])["outputs"]
    assert first["parameters"] == {"binary_data_size": 12}
    assert second["data"] == [0.0, 1.0, 2.0]
    assert np.frombuffer(answer.body[length:], "<f4").tolist() == [2.0, 3.0, 4.0]


async def test_raw_binary_request(client: Client) -> None:
    data = np.arange(6, dtype="<f4").tobytes()
    answer = await client.infer(data, headers={"Inference-Header-Content-Length": 0})
    length = int(answer.headers["inference-header-content-length"])
    assert json.loads(answer.body[:length])["outputs"][0]["shape"] == [2, 3]
    assert answer.body[length:] == data


@pytest.mark.parametrize(("model", "datatype"), [("half", "FP16"), ("brain", "BF16")])
async def test_half_precision_goes_binary_only(client: Client, model: str, datatype: str) -> None:
    data = b"\x00\x3c" * 3
    entry = {"name": "x", "shape": [1, 3], "datatype": datatype, "parameters": {"binary_data_size": 6}}
    message = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    answer = await client.infer(message + data, model, {"Inference-Header-Content-Length": len(message)})
    assert answer.status == 200
    assert answer.body.endswith(data)

    refused = await client.infer({"inputs": [tensor([1, 2, 3], datatype=datatype)]}, model)
    assert refused.status == 400
    assert "inputs[0].data" in refused.error
    assert "binary" in refused.error

    message = json.dumps({"inputs": [entry]}).encode()
    refused = await client.infer(message + data, model, {"Inference-Header-Content-Length": len(message)})
    assert refused.status == 400
    assert "binary_data_output" in refused.error


async def test_strings_keep_every_character(client: Client) -> None:
    answer = await client.infer({"inputs": [tensor(["", "grün", "a\x00b"], datatype="BYTES")]}, "text")
    assert answer.json["outputs"][0]["data"] == ["", "grün", "a\x00b"]


async def test_nan_and_infinity_are_never_null(client: Client) -> None:
    message = {"inputs": [tensor([0, 1, 2])]}
    refused = await client.infer(message, "inverse")
    assert refused.status == 400
    assert "output 'y'" in refused.error
    assert "binary_data_output" in refused.error
    answer = await client.infer({**message, "parameters": {"binary_data_output": True}}, "inverse")
    assert answer.status == 200
    assert np.isinf(np.frombuffer(answer.body[-12:], "<f4")[0])


async def test_values_that_the_model_refuses_are_the_callers_fault(client: Client) -> None:
    answer = await client.infer({"inputs": [tensor([99], shape=[1, 1], name="ids", datatype="INT64")]}, "gather")
    assert answer.status == 400
    assert "out of data bounds" in answer.error


async def test_inputs_of_different_rows_are_named(client: Client) -> None:
    inputs = [tensor([[1, 2, 3]] * 2, name="a", shape=[2, 3]), tensor([[1, 2, 3]] * 3, name="b", shape=[3, 3])]
    answer = await client.infer({"inputs": inputs}, "add")
    assert answer.status == 400
    assert "'n' is 2 for 'a' and 3 for 'b'" in answer.error


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", lambda raw: zlib.compress(raw, wbits=-15))],
)
async def test_compressed_bodies(client: Client, encoding: str, compress: Callable[[bytes], bytes]) -> None:
    body = compress(json.dumps({"inputs": [tensor([1, 2, 3])]}).encode())
    assert (await client.infer(body, headers={"Content-Encoding": encoding})).status == 200


async def test_plain_route(client: Client) -> None:
    async def ask(model: str, data: object) -> object:
        body = json.dumps({"model_name": model, "input_data": data}).encode()
        answer = await client.request("POST", "/model", body)
        assert answer.status == 200, answer.body
        return answer.json

    assert await ask("m", [[1, 2, 3], [4, 5, 6]]) == {"output_data": [[1, 2, 3], [4, 5, 6]]}
    assert await ask("m", {"x": [[1, 2, 3]]}) == {"output_data": [[1, 2, 3]]}
    assert await ask("half", [[1, 2, 3.5]]) == {"output_data": [[1, 2, 3.5]]}
    assert await ask("text", [["a", "b", "c"]]) == {"output_data": [["a", "b", "c"]]}
    data = {"a": [[1, 2, 3]], "b": [[1, 1, 1]]}
    assert await ask("add", data) == {"output_data": {"sum": [[2, 3, 4]], "difference": [[0, 1, 2]]}}


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"input_data": []}, 400, "model_name"),
        ({"model_name": "m"}, 400, "input_data"),
        ({"model_name": "zz", "input_data": []}, 404, "zz"),
        ({"model_name": "m", "input_data": [1, 2, 3]}, 400, "nested 2 deep"),
        ({"model_name": "m", "input_data": [[1, 2], [3]]}, 400, "input_data 'x'"),
        ({"model_name": "m", "input_data": [[1, 2, 3], [4]]}, 400, "depth 2"),
        ({"model_name": "m", "input_data": [["a", "b", "c"]]}, 400, "Expected `float`"),
        ({"model_name": "m", "input_data": {"z": [[1, 2, 3]]}}, 400, "no input 'z'"),
        ({"model_name": "add", "input_data": {"a": [[1, 2, 3]]}}, 400, "'b' missing"),
        ({"model_name": "add", "input_data": [[1, 2, 3]]}, 400, "object of input name"),
        ({"model_name": "inverse", "input_data": [[0, 1, 2]]}, 400, "NaN or infinity"),
        ({"model_name": "half", "input_data": [[1e9, 1, 2]]}, 400, "does not fit FP16"),
        ({"model_name": "brain", "input_data": [[1e300, 1, 2]]}, 400, "BF16"),
    ],
)
async def test_plain_route_names_the_mistake(client: Client, body: object, status: int, text: str) -> None:
    answer = await client.request("POST", "/model", json.dumps(body).encode())
    assert answer.status == status
    assert text in answer.error
