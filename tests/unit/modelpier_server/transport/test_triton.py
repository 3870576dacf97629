"""Triton's configuration, statistics, classification and generate."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelpier_server.contract import TensorSpec
from modelpier_server.protocol import classification
from modelpier_server.protocol.signature import Signature, Slot
from modelpier_server.telemetry import BATCH_SIZES, Metrics, ModelMetrics
from support import onnx_models
from support.serving import Answer, Client, Running, gated, planned, running, servable, tensor, until


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[Running]:
    metrics = Metrics()
    models = {
        "m": onnx_models.identity(),
        "add": onnx_models.add(),
        "text": onnx_models.identity("BYTES", ("n", 1)),
        "pair": onnx_models.identity("INT64", (2, "k")),
        "scalar": onnx_models.identity("FP32", ()),
        "half": onnx_models.identity("FP16", ("n",)),
        "inverse": onnx_models.reciprocal(),
        "bits": onnx_models.identity("BOOL", ("n", 3)),
        "unsigned": onnx_models.identity("UINT8", (4,)),
    }
    served = [servable(model, tmp_path, planned(name), metrics) for name, model in models.items()]
    async with running(*served, metrics=metrics) as state:
        yield state


@pytest.fixture
async def client(state: Running) -> Client:
    return await state.client()


# ------------------------------------------------------------------------------------------------ configuration
async def test_configuration_of_a_model_that_shares_runs(state: Running, client: Client) -> None:
    state.shelf.servables["add"].finding.max_rows = 16
    for path in ("/v2/models/add/config", "/v2/models/add/versions/1/config"):
        config = (await client.request("GET", path)).json
        assert (config["name"], config["backend"], config["max_batch_size"]) == ("add", "onnxruntime", 16)
        assert config["input"][0] == {"name": "a", "data_type": "TYPE_FP32", "dims": [3]}
        assert [o["name"] for o in config["output"]] == ["sum", "difference"]
        assert config["version_policy"] == {"specific": {"versions": [1]}}
        assert "dynamic_batching" in config
        assert config["instance_group"][0]["kind"] == "KIND_CPU"


async def test_configuration_of_one_that_does_not(client: Client) -> None:
    config = (await client.request("GET", "/v2/models/pair/config")).json
    assert config["max_batch_size"] == 0
    assert config["input"] == [{"name": "x", "data_type": "TYPE_INT64", "dims": [2, -1]}]
    assert "dynamic_batching" not in config
    assert config["parameters"]["batching"]["string_value"].startswith("off: ")
    text = (await client.request("GET", "/v2/models/text/config")).json
    assert text["input"][0]["data_type"] == "TYPE_STRING"


async def test_versions_that_are_no_numbers(tmp_path: Path) -> None:
    async with running(servable(onnx_models.identity(), tmp_path, planned(version="5d9c1f"))) as state:
        config = (await (await state.client()).request("GET", "/v2/models/m/config")).json
        assert config["version_policy"] == {"latest": {"num_versions": 1}}


@pytest.mark.parametrize("suffix", ["config", "stats"])
async def test_what_is_not_there(state: Running, client: Client, suffix: str) -> None:
    state.shelf.pending.add("later")
    for path, status in (("zz", 404), ("m/versions/9", 404), ("later", 503)):
        assert (await client.request("GET", f"/v2/models/{path}/{suffix}")).status == status
    assert (await client.request("POST", f"/v2/models/m/{suffix}")).status == 405


# ------------------------------------------------------------------------------------------------ statistics
async def statistics(client: Client, path: str = "/v2/models/m/stats") -> dict[str, Any]:
    answer = await client.request("GET", path)
    assert answer.status == 200
    (found,) = [s for s in answer.json["model_stats"] if s["name"] == "m"]
    return dict(found)


async def test_statistics_before_the_first_request(client: Client) -> None:
    found = await statistics(client)
    assert (found["version"], found["last_inference"], found["batch_stats"]) == ("1", 0, [])
    assert found["inference_stats"]["success"] == {"count": 0, "ns": 0}


async def test_statistics(state: Running, client: Client) -> None:
    before = time.time() * 1000
    for rows in (1, 3, 3):
        assert (await client.infer({"inputs": [tensor([[1, 2, 3]] * rows, shape=[rows, 3])]})).status == 200
    assert (await client.infer({"inputs": []})).status == 400
    for path in ("/v2/models/m/stats", "/v2/models/m/versions/1/stats", "/v2/models/stats"):
        found = await statistics(client, path)
        stats = found["inference_stats"]
        assert before - 5 <= found["last_inference"] <= time.time() * 1000 + 5
        assert found["execution_count"] == 3
        assert {k: v["count"] for k, v in stats.items()} == {
            "success": 3, "fail": 1, "queue": 3, "compute_input": 3, "compute_infer": 3, "compute_output": 3,
            "cache_hit": 0, "cache_miss": 0,
        }  # fmt: skip
        assert 0 < stats["compute_infer"]["ns"] <= stats["success"]["ns"]
        assert stats["compute_output"]["ns"] > 0
        rows = state.shelf.servables["m"].finding.max_rows
        sizes = {b["batch_size"]: b["compute_infer"]["count"] for b in found["batch_stats"]}
        assert sizes == ({1: 1, 3: 2} if rows else {1: 3})
        assert sum(b["compute_infer"]["ns"] for b in found["batch_stats"]) == stats["compute_infer"]["ns"]
        json.loads(json.dumps(found))
    assert len((await client.request("GET", "/v2/models/stats")).json["model_stats"]) == len(state.shelf.servables)


async def test_time_of_what_fails_counts(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served) as state:
        client = await state.client()
        await client.send(
            b"POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
        )
        await until(lambda: session.runs)
        client.close()
        await until(lambda: served._metrics.failed)
        session.gate.set()
        assert served._metrics.fail_ns > 0


BODY = json.dumps({"inputs": [tensor([1, 2, 3])]}).encode()


def test_batch_sizes_are_bounded() -> None:
    metrics = ModelMetrics("m", "1")
    for rows in range(BATCH_SIZES + 10):
        metrics.ran(rows, (0, 1, 0))
        metrics.ran(0, (0, 1, 0))
    assert len(metrics.batches) == BATCH_SIZES
    assert metrics.batches[0].runs == BATCH_SIZES + 11


# ------------------------------------------------------------------------------------------------ classification
async def classify(client: Client, data: list[object], count: int, model: str = "m", **more: object) -> Answer:
    datatype, shape = ("UINT8", [4]) if model == "unsigned" else ("FP32", [len(data) // 3, 3])
    outputs = [{"name": "y", "parameters": {"classification": count, **more}}]
    return await client.infer({"inputs": [tensor(data, shape=shape, datatype=datatype)], "outputs": outputs}, model)


async def test_the_highest_of_each_row(client: Client) -> None:
    answer = await classify(client, [1, 3, 2, 9, 9, 0.5], 2)
    (output,) = answer.json["outputs"]
    assert output == {
        "name": "y",
        "datatype": "BYTES",
        "shape": [2, 2],
        "data": ["3.000000:1", "2.000000:2", "9.000000:0", "9.000000:1"],
    }


async def test_an_output_without_rows_is_ranked_whole(client: Client) -> None:
    answer = await classify(client, [1, 255, 0, 7], 9, "unsigned")
    assert answer.json["outputs"][0]["shape"] == [4]
    assert answer.json["outputs"][0]["data"] == ["255:1", "7:3", "1:0", "0:2"]


async def test_classes_as_binary(client: Client) -> None:
    answer = await classify(client, [1, 3, 2], 1, binary_data=True)
    assert answer.body.endswith(b"\x0a\0\0\0" + b"3.000000:1")


async def test_none_wanted_is_no_classification(client: Client) -> None:
    assert (await classify(client, [1, 3, 2], 0)).json["outputs"][0]["data"] == [1, 3, 2]


async def test_what_has_no_order(client: Client) -> None:
    outputs = [{"name": "y", "parameters": {"classification": 1}}]
    entry = tensor([True, False, True], datatype="BOOL")
    answer = await client.infer({"inputs": [entry], "outputs": outputs}, "bits")
    assert (answer.status, "classification: output 'y' is BOOL" in answer.error) == (400, True)


def test_nan_is_never_first_and_half_precision_is_ranked() -> None:
    slot = Signature.of([], [TensorSpec("y", "FP16", (-1, 3))]).outputs["y"]
    slots, arrays = classification.apply({"y": 2}, [slot], [np.array([[np.nan, 1, 2]], np.float16)])
    assert arrays[0].tolist() == [["2.000000:2", "1.000000:1"]]
    assert (slots[0].datatype.name, isinstance(slots[0], Slot)) == ("BYTES", True)


# ------------------------------------------------------------------------------------------------ generate
async def generate(client: Client, message: object, model: str, suffix: str = "") -> Answer:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return await client.request("POST", f"/v2/models/{model}/generate{suffix}", body)


GENERATED = {
    "text_input for the only text": ("text", {"text_input": "a"}, {"y": "a"}),
    "by name": ("text", {"x": "a", "id": "7"}, {"y": "a", "id": "7"}),
    "several elements": ("text", {"x": ["a", "b"]}, {"y": ["a", "b"]}),
    "among the parameters": ("text", {"parameters": {"x": "a", "temperature": 0.5}}, {"y": "a"}),
    "parameters of no account": ("text", {"x": "a", "stream": False, "parameters": {"stop": "."}}, {"y": "a"}),
    "a row": ("m", {"x": [1, 2, 3]}, {"y": [1, 2, 3]}),
    "rows of a flat list": ("m", {"x": [1, 2, 3, 4, 5, 6]}, {"y": [1, 2, 3, 4, 5, 6]}),
    "the innermost size": ("pair", {"x": [1, 2, 3, 4]}, {"y": [1, 2, 3, 4]}),
    "a scalar": ("scalar", {"x": 1.5}, {"y": 1.5}),
    "half precision": ("half", {"x": [0.5]}, {"y": 0.5}),
    "several": ("add", {"a": [1, 1, 1], "b": [1, 2, 3]}, {"sum": [2, 3, 4], "difference": [0, -1, -2]}),
}


@pytest.mark.parametrize(("model", "message", "outputs"), GENERATED.values(), ids=GENERATED.keys())
async def test_generate(client: Client, model: str, message: object, outputs: dict[str, object]) -> None:
    answer = await generate(client, message, model)
    assert answer.json == {"model_name": model, "model_version": "1", **outputs}
    stream = await generate(client, message, model, "_stream")
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    start, _, rest = stream.body.partition(b"data: ")
    assert (start, rest[-2:], json.loads(rest)) == (b"", b"\n\n", answer.json)


NOT_GENERATED = {
    "missing": ("text", {}, "'x' missing"),
    "twice": ("text", {"text_input": "a", "x": "b"}, "'x' is given twice"),
    "twice by parameters": ("text", {"x": "a", "parameters": {"x": "b"}}, "parameters: 'x' is given beside"),
    "a number for text": ("text", {"x": 5}, "'x': Expected `str`"),
    "text for a number": ("m", {"x": ["1", "2", "3"]}, "'x': Expected `float`"),
    "nested": ("m", {"x": [[1, 2, 3]]}, "flat list"),
    "no multiple": ("m", {"x": [1, 2]}, "2 elements do not fit"),
    "none": ("m", {"x": []}, "'x'"),
    "more than a scalar": ("scalar", {"x": [1, 2]}, "2 elements do not fit"),
    "an object": ("text", {"x": {}}, "'x'"),
    "parameters no object": ("text", {"x": "a", "parameters": 5}, "parameters"),
    "a parameter that is a list": ("text", {"x": "a", "stop": ["."]}, "parameter 'stop'"),
    "id a number": ("text", {"x": "a", "id": 7}, "id"),
    "an array": ("text", [], "request"),
    "infinity": ("inverse", {"x": [0, 1, 1]}, "NaN or infinity"),
    "NaN literal": ("m", b'{"x": [NaN, 1, 2]}', "malformed"),
    "too large": ("m", {"x": [1e39, 1, 2]}, "FP32"),
    "empty body": ("text", b"", "request"),
    "100 thousand brackets": ("text", b'{"x":' + b"[" * 100_000, "nested"),
}


@pytest.mark.parametrize(("model", "message", "text"), NOT_GENERATED.values(), ids=NOT_GENERATED.keys())
@pytest.mark.parametrize("suffix", ["", "_stream"])
async def test_wrong_generate(client: Client, model: str, message: object, text: str, suffix: str) -> None:
    answer = await generate(client, message, model, suffix)
    assert answer.status == 400
    assert text in answer.error
