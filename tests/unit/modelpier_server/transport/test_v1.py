"""KServe v1 `:predict`: rows and columns, base64, and every wrong form named."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelpier_server.contract import Limits
from support import onnx_models
from support.serving import Answer, Client, Running, planned, running, servable


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[Running]:
    models = {
        "m": onnx_models.identity(),
        "add": onnx_models.add(),
        "mean": onnx_models.mean_of_all(),
        "half": onnx_models.identity("FP16"),
        "text": onnx_models.identity("BYTES", ("n",)),
        "long": onnx_models.identity("INT64", ("n",)),
        "scalar": onnx_models.identity("FP32", ()),
        "inverse": onnx_models.reciprocal(),
    }
    small = servable(onnx_models.identity(), tmp_path, planned("small", limits=Limits(max_body_bytes=40)))
    async with running(small, *(servable(model, tmp_path, planned(name)) for name, model in models.items())) as state:
        yield state


@pytest.fixture
async def client(state: Running) -> Client:
    return await state.client()


async def predict(client: Client, message: object, model: str = "m") -> Answer:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return await client.request("POST", f"/v1/models/{model}:predict", body)


def b64(text: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(text).decode()}


ROWS = {
    "rows": ("m", {"instances": [[1, 2, 3], [4, 5, 6]]}, [[1, 2, 3], [4, 5, 6]]),
    "rows by name": ("m", {"instances": [{"x": [1, 2, 3]}]}, [[1, 2, 3]]),
    "columns": ("m", {"inputs": [[1, 2, 3]]}, [[1, 2, 3]]),
    "columns by name": ("m", {"inputs": {"x": [[1, 2, 3]]}}, [[1, 2, 3]]),
    "several inputs": (
        "add",
        {"instances": [{"a": [3, 3, 3], "b": [1, 2, 3]}, {"b": [0, 0, 0], "a": [1, 1, 1]}]},
        [{"sum": [4, 5, 6], "difference": [2, 1, 0]}, {"sum": [1, 1, 1], "difference": [1, 1, 1]}],
    ),
    "several inputs as columns": (
        "add",
        {"inputs": {"a": [[3, 3, 3]], "b": [[1, 2, 3]]}},
        {"sum": [[4, 5, 6]], "difference": [[2, 1, 0]]},
    ),
    "half precision": ("half", {"instances": [[0.5, 1, 2]]}, [[0.5, 1, 2]]),
    "text": ("text", {"instances": ["a", "grün"]}, ["a", "grün"]),
    "text as base64": ("text", {"instances": [b64(b"a"), "b"]}, ["a", "b"]),
    "text as base64 by name": ("text", {"instances": [{"x": b64("grün".encode())}]}, ["grün"]),
    "text as base64 in columns": ("text", {"inputs": {"x": [b64(b"a")]}}, ["a"]),
    "numbers without a list": ("long", {"instances": [1, 2**62]}, [1, 2**62]),
    "a scalar in columns": ("scalar", {"inputs": 5}, 5),
    "fields of no account": ("m", {"signature_name": "x", "instances": [[1, 2, 3]], "parameters": {}}, [[1, 2, 3]]),
}


@pytest.mark.parametrize(("model", "message", "predictions"), ROWS.values(), ids=ROWS.keys())
async def test_predict(client: Client, model: str, message: object, predictions: object) -> None:
    answer = await predict(client, message, model)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {"predictions": predictions}


WRONG = {
    "strings": ("m", {"instances": [["a", "b", "c"]]}, "instances 'x': Expected `float`"),
    "booleans": ("m", {"instances": [[True, True, True]]}, "instances 'x'"),
    "null": ("m", {"instances": [[None, 1, 2]]}, "instances 'x'"),
    "other name": ("m", {"instances": [{"z": [1, 2, 3]}]}, "instances[0]: the model has no input 'z'"),
    "a name too many": ("m", {"instances": [{"x": [1, 2, 3], "z": 1}]}, "instances[0]: the model has no input 'z'"),
    "a name missing": ("add", {"instances": [{"a": [1, 2, 3]}]}, "instances[0]: 'b' missing"),
    "a name missing later": (
        "add",
        {"instances": [{"a": [1, 2, 3], "b": [1, 2, 3]}, {"a": [1, 2, 3]}]},
        "instances[1]: 'b' missing",
    ),
    "no names": ("add", {"instances": [[1, 2, 3]]}, "instances: must be objects"),
    "no rows of several inputs": ("add", {"instances": []}, "instances: must be objects"),
    "rows and lists mixed": ("m", {"instances": [{"x": [1, 2, 3]}, [1, 2, 3]]}, "instances[1]"),
    "wrong length": ("m", {"instances": [[1, 2]]}, "instances 'x': [1, 2] does not fit"),
    "ragged": ("m", {"instances": [[1, 2, 3], [4]]}, "depth 2"),
    "too deep": ("m", {"instances": [[[1, 2, 3]]]}, "nested 2 deep"),
    "too flat": ("m", {"instances": [1, 2, 3]}, "nested 2 deep"),
    "no instances": ("m", {"instances": []}, "instances 'x'"),
    "instances no list": ("m", {"instances": 5}, "instances"),
    "instances null": ("m", {"instances": None}, "instances"),
    "neither": ("m", {"data": [[1, 2, 3]]}, "instances: missing"),
    "both": ("m", {"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}, "both instances and inputs"),
    "an array": ("m", [[1, 2, 3]], "object"),
    "columns by another name": ("m", {"inputs": {"z": [[1, 2, 3]]}}, "inputs: the model has no input 'z'"),
    "columns missing": ("add", {"inputs": {"a": [[1, 2, 3]]}}, "inputs: 'b' missing"),
    "columns without names": ("add", {"inputs": [[1, 2, 3]]}, "object of input name"),
    "too large for FP32": ("m", {"instances": [[1e39, 1, 1]]}, "FP32"),
    "too large for INT64": ("long", {"instances": [2**63]}, "INT64"),
    "a fraction for INT64": ("long", {"instances": [1.5]}, "Expected `int`"),
    "no base64": ("text", {"instances": [{"b64": "?"}]}, "not base64"),
    "base64 that is no text": ("text", {"instances": [b64(b"\xff")]}, "not UTF-8"),
    "base64 for numbers": ("m", {"instances": [b64(b"abc")]}, "instances 'x'"),
    "base64 with more": ("text", {"instances": [{"b64": "YQ==", "c": 1}]}, "instances[0]"),
    "rows of a scalar": ("scalar", {"instances": [1]}, "give inputs instead"),
    "an output without rows": ("mean", {"instances": [[1, 2, 3]] * 2}, "not one row for each; give inputs"),
    "infinity": ("inverse", {"instances": [[0, 1, 2]]}, "output 'y': holds NaN or infinity"),
    "NaN literal": ("m", b'{"instances": [[NaN, 1, 2]]}', "malformed"),
    "1e999": ("m", b'{"instances": [[1e999, 1, 2]]}', "out of range"),
    "truncated": ("m", b'{"instances": [[1, 2', "truncated"),
    "empty body": ("m", b"", "request"),
    "no UTF-8": ("m", b"\xff\xfe", "malformed"),
    "100 thousand brackets": ("m", b'{"instances": ' + b"[" * 100_000, "nested"),
    "100 thousand brackets, closed": ("m", b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
}


@pytest.mark.parametrize(("model", "message", "text"), WRONG.values(), ids=WRONG.keys())
async def test_wrong_requests(client: Client, model: str, message: object, text: str) -> None:
    answer = await predict(client, message, model)
    assert answer.status == 400, answer.body
    assert text in answer.error
    assert (await predict(client, {"instances": [[1, 2, 3]]})).status == 200


async def test_an_answer_that_cannot_be_written_counts_as_failed(state: Running, client: Client) -> None:
    await predict(client, {"instances": [[0, 1, 2]]}, "inverse")
    served = state.shelf.servables["inverse"]
    assert (served._metrics.success, served._metrics.failed) == (0, 1)


async def test_the_models_limit_holds(client: Client) -> None:
    assert (await predict(client, {"instances": [[1, 2, 3]]}, "small")).status == 200
    answer = await predict(client, {"instances": [[1, 2, 3]] * 5}, "small")
    assert answer.status == 413
    answer = await client.request("POST", "/v1/models/small:predict", b" " * 10_001)
    assert answer.status == 413
    assert answer.headers["connection"] == "close"


async def test_versions_and_what_is_not_there(state: Running, client: Client) -> None:
    body = json.dumps({"instances": [[1, 2, 3]]}).encode()
    assert (await client.request("POST", "/v1/models/m/versions/1:predict", body)).status == 200
    assert (await client.request("POST", "/v1/models/m/versions/9:predict", body)).status == 404
    assert (await predict(client, {"instances": [[1, 2, 3]]}, "zz")).status == 404
    state.shelf.pending.add("later")
    assert (await predict(client, {"instances": [[1, 2, 3]]}, "later")).status == 503


async def test_look_ups(state: Running, client: Client) -> None:
    assert (await client.request("GET", "/v1/models")).json == {"models": list(state.shelf.servables)}
    assert (await client.request("GET", "/v1/models/m")).json == {"name": "m", "ready": True}
    assert (await client.request("GET", "/v1/models/zz")).status == 404
    state.shelf.pending.add("later")
    assert (await client.request("GET", "/v1/models/later")).status == 503


async def test_other_methods_are_told(client: Client) -> None:
    answer = await client.request("GET", "/v1/models/m:predict")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
