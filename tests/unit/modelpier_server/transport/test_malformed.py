"""Wrong requests: each gets the right status and a text that names the mistake, never a 500, and the server lives on.

The rows are those on which widely used servers were seen to answer 500, to accept nonsense, or to die.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelpier_server.contract import Limits
from support import onnx_models
from support.serving import Client, Running, planned, running, servable, tensor

ROW = [0.5] * 32


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[Running]:
    models = [
        servable(onnx_models.mlp(), tmp_path),
        servable(onnx_models.identity("FP16"), tmp_path, planned("half")),
        servable(onnx_models.identity("BYTES", (2,)), tmp_path, planned("text")),
        servable(onnx_models.identity("BOOL", (4,)), tmp_path, planned("bits")),
        servable(onnx_models.identity("UINT8", (3,)), tmp_path, planned("bytes")),
        servable(onnx_models.variable_length(), tmp_path, planned("lengths")),
        servable(onnx_models.identity(), tmp_path, planned("small", limits=Limits(max_body_bytes=2000))),
    ]
    async with running(*models) as state:
        yield state


@pytest.fixture
async def client(state: Running) -> AsyncIterator[Client]:
    """Every test ends with a good request on the same connection: what was wrong must have left no trace."""
    client = await state.client()
    yield client
    answer = await client.infer({"inputs": [row()]})
    assert answer.status == 200, answer.body


def row(data: object = None, **fields: object) -> dict[str, object]:
    return {**tensor(ROW if data is None else data, shape=[1, 32]), **fields}


def deep(levels: int) -> bytes:
    return b'{"inputs":[{"name":"x","shape":[1,32],"datatype":"FP32","data":' + b"[" * levels


JSON_ROWS = {
    "strings in FP32": ({"inputs": [row(["0.5"] * 32)]}, "inputs[0].data"),
    "booleans in FP32": ({"inputs": [row([True] * 32)]}, "inputs[0].data"),
    "null in FP32": ({"inputs": [row([None] * 32)]}, "inputs[0].data"),
    "other datatype declared": ({"inputs": [row(datatype="INT64")]}, "inputs[0].datatype"),
    "unknown datatype": ({"inputs": [row(datatype="FOO")]}, "inputs[0].datatype: 'FOO'"),
    "wrong input name": ({"inputs": [row(name="z")]}, "no input 'z'"),
    "input given twice": ({"inputs": [row(), row()]}, "inputs[1].name"),
    "wrong shape": ({"inputs": [row(ROW[:31], shape=[1, 31])]}, "inputs[0].shape"),
    "wrong rank": ({"inputs": [row(shape=[32])]}, "inputs[0].shape"),
    "fewer elements than the shape": ({"inputs": [row(ROW[:31])]}, "31 elements"),
    "more elements than the shape": ({"inputs": [row([*ROW, 1])]}, "33 elements"),
    "negative shape": ({"inputs": [row(shape=[-1, 32])]}, "inputs[0].shape"),
    "huge shape 2^40": ({"inputs": [row(shape=[1 << 40, 32])]}, "inputs[0].shape"),
    "huge shape 2^62": ({"inputs": [row(shape=[1 << 62, 32])]}, "inputs[0].shape"),
    "huge shape 2^300": ({"inputs": [row(shape=[1 << 300, 32])]}, "inputs[0].shape"),
    "huge shape within the limit": ({"inputs": [row(shape=[1 << 34, 32])]}, "32 elements"),
    "fractional shape": ({"inputs": [row(shape=[1.5, 32])]}, "shape"),
    "shape of text": ({"inputs": [row(shape=["1", 32])]}, "shape"),
    "no inputs": ({"inputs": []}, "'x' missing"),
    "no field inputs": ({}, "inputs"),
    "inputs null": ({"inputs": None}, "inputs"),
    "data null": ({"inputs": [{**row(), "data": None}]}, "inputs[0].data"),
    "data missing": ({"inputs": [{k: v for k, v in row().items() if k != "data"}]}, "inputs[0].data: missing"),
    "data an object": ({"inputs": [row({})]}, "inputs[0].data"),
    "data a number": ({"inputs": [row(1)]}, "inputs[0].data"),
    "ragged": ({"inputs": [row([[1, 2], [3]], shape=[2, 32])]}, "inputs[0].data"),
    "nested too deep": ({"inputs": [row([[ROW]])]}, "inputs[0].data"),
    "batch 0": ({"inputs": [row([], shape=[0, 32])]}, "no rows"),
    "batch 0, huge": ({"inputs": [row([], shape=[0, 1 << 62])]}, "inputs[0].shape"),
    "number too large for FP32": ({"inputs": [row([1e39, *ROW[1:]])]}, "FP32"),
    "unknown output": ({"inputs": [row()], "outputs": [{"name": "z"}]}, "outputs[0].name"),
    "output asked for twice": ({"inputs": [row()], "outputs": [{"name": "y"}, {"name": "y"}]}, "outputs[1].name"),
    "classification of less than nothing": (
        {"inputs": [row()], "outputs": [{"name": "y", "parameters": {"classification": -1}}]},
        "outputs[0].parameters.classification",
    ),
    "binary size without binary data": ({"inputs": [row(parameters={"binary_data_size": 4})]}, "binary_data_size"),
    "id a number": ({"inputs": [row()], "id": 7}, "id"),
    "an array": ([], "object"),
    "a number": (5, "object"),
}


@pytest.mark.parametrize(("message", "text"), JSON_ROWS.values(), ids=JSON_ROWS.keys())
async def test_wrong_json_requests(client: Client, message: object, text: str) -> None:
    answer = await client.infer(message)
    assert answer.status == 400
    assert text in answer.error


RAW_ROWS = {
    "truncated": (b'{"inputs":[{"name":"x","shape":[1,32],"data', "truncated"),
    "empty body": (b"", "request"),
    "trailing bytes": (json.dumps({"inputs": [row()]}).encode() + b" x", "trailing"),
    "NaN literal": (json.dumps({"inputs": [row([float("nan")] * 32)]}).encode(), "malformed"),
    "Infinity literal": (json.dumps({"inputs": [row([float("inf")] * 32)]}).encode(), "malformed"),
    "1e999": (json.dumps({"inputs": [row()]}).replace("0.5", "1e999").encode(), "out of range"),
    "deep nesting, 100 thousand": (deep(100_000), "nested too deeply"),
    "deep nesting, closed": (deep(200) + b"]" * 200 + b"}]}", "inputs[0].data"),
    "deep nesting elsewhere": (b'{"a":' * 100_000, "nested too deeply"),
    "no UTF-8": (b"\xff\xfe\x00", "malformed"),
    "no UTF-8 in a string": (b'{"inputs":[],"id":"\xff"}', "utf-8"),
    "bytes of zero": (b"\x00" * 100, "malformed"),
}


@pytest.mark.parametrize(("body", "text"), RAW_ROWS.values(), ids=RAW_ROWS.keys())
async def test_what_is_no_request(client: Client, body: bytes, text: str) -> None:
    answer = await client.infer(body)
    assert answer.status == 400
    assert text in answer.error


@pytest.mark.parametrize(
    ("model", "entry", "text"),
    [
        ("text", tensor([1, 2], shape=[2], datatype="BYTES"), "Expected `str`"),
        ("bits", tensor([0, 1, 0, 1], shape=[4], datatype="BOOL"), "Expected `bool`"),
        ("bytes", tensor([1, 2, 300], shape=[3], datatype="UINT8"), "UINT8"),
        ("bytes", tensor([1, 2, -1], shape=[3], datatype="UINT8"), "UINT8"),
        ("bytes", tensor([1, 2, 1.7], shape=[3], datatype="UINT8"), "Expected `int`"),
        ("bytes", tensor([1, 2, 10**40], shape=[3], datatype="UINT8"), "UINT8"),
        ("lengths", tensor([], name="ids", shape=[0, 1 << 39], datatype="INT64"), "no rows"),
    ],
)
async def test_elements_out_of_their_type(client: Client, model: str, entry: dict[str, object], text: str) -> None:
    answer = await client.infer({"inputs": [entry]}, model)
    assert answer.status == 400
    assert text in answer.error


def binary_entry(size: object, shape: object = (1, 32)) -> dict[str, object]:
    entry = row(shape=list(shape) if isinstance(shape, tuple) else shape, parameters={"binary_data_size": size})
    del entry["data"]
    return entry


BINARY_ROWS = {
    "payload short": (binary_entry(128), b"\0" * 100, "100 bytes are left"),
    "payload long": (binary_entry(128), b"\0" * 130, "130 bytes follow"),
    "size too small for the shape": (binary_entry(124), b"\0" * 124, "128"),
    "size 2^62": (binary_entry(1 << 62), b"\0" * 128, "binary_data_size"),
    "negative size": (binary_entry(-1), b"\0" * 128, "binary_data_size"),
    "size of text": (binary_entry("128"), b"\0" * 128, "binary_data_size"),
    "huge shape, small data": (binary_entry(128, (1 << 36, 32)), b"\0" * 128, "inputs[0]"),
    "negative shape": (binary_entry(128, (-1, 32)), b"\0" * 128, "inputs[0].shape"),
    "data and binary data": ({**binary_entry(128), "data": ROW}, b"\0" * 128, "has both"),
}


@pytest.mark.parametrize(("entry", "payload", "text"), BINARY_ROWS.values(), ids=BINARY_ROWS.keys())
async def test_wrong_binary_requests(client: Client, entry: object, payload: bytes, text: str) -> None:
    message = json.dumps({"inputs": [entry]}).encode()
    answer = await client.infer(message + payload, headers={"Inference-Header-Content-Length": len(message)})
    assert answer.status == 400
    assert text in answer.error


@pytest.mark.parametrize("length", ["100000", "-1", "x", "1.5", "+3", "99999999999999999999", "1_0", ""])
async def test_wrong_header_length(client: Client, length: str) -> None:
    body = json.dumps({"inputs": [row()]}).encode()
    answer = await client.infer(body, headers={"Inference-Header-Content-Length": length})
    assert answer.status == 400
    assert "Inference-Header-Content-Length" in answer.error


@pytest.mark.parametrize(
    ("model", "body", "text"),
    [
        ("m", b"\0" * 127, "127 bytes"),
        ("m", b"", "0 bytes"),
        ("lengths", b"\0" * 7, "7 bytes"),
        ("text", b"abc", "one element"),
    ],
)
async def test_wrong_raw_requests(client: Client, model: str, body: bytes, text: str) -> None:
    answer = await client.infer(body, model, {"Inference-Header-Content-Length": 0})
    assert answer.status == 400
    assert text in answer.error


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"\x01\0\0\0a", "cannot hold"),
        (b"\x01\0\0\0a\x05\0\0\0b", "are left"),
        (b"\xff\xff\xff\xff" + b"a" * 8, "are left"),
        (b"\x01\0\0\0a\x01\0\0\0bxx", "does not end"),
        (b"\x01\0\0\0\xff\x01\0\0\0b", "not UTF-8"),
    ],
)
async def test_wrong_strings(client: Client, payload: bytes, text: str) -> None:
    entry = tensor(None, shape=[2], datatype="BYTES")
    del entry["data"]
    message = json.dumps({"inputs": [{**entry, "parameters": {"binary_data_size": len(payload)}}]}).encode()
    answer = await client.infer(message + payload, "text", {"Inference-Header-Content-Length": len(message)})
    assert answer.status == 400
    assert text in answer.error


async def test_a_boolean_is_0_or_1(client: Client) -> None:
    answer = await client.infer(b"\0\1\2\0", "bits", {"Inference-Header-Content-Length": 0})
    assert answer.status == 400


async def test_unknown_and_not_ready_models(state: Running, client: Client) -> None:
    assert (await client.infer({"inputs": [row()]}, "unknown")).status == 404
    state.shelf.pending.add("later")
    answer = await client.infer({"inputs": [row()]}, "later")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"


async def test_content_type_is_not_asked_for(client: Client) -> None:
    answer = await client.infer({"inputs": [row()]}, headers={"Content-Type": "text/plain"})
    assert answer.status == 200


@pytest.mark.parametrize(
    ("body", "encoding", "status", "text"),
    [
        (b"no gzip", "gzip", 400, "not gzip"),
        (b"no deflate", "deflate", 400, "not deflate"),
        (gzip.compress(b"{}", mtime=0)[:-4], "gzip", 400, "cut short"),
        (gzip.compress(b"{}", mtime=0) + b"more", "gzip", 400, "follow"),
        (b"{}", "br", 415, "'br'"),
        (b"{}", "gzip, gzip", 415, "gzip, gzip"),
    ],
)
async def test_wrong_encodings(client: Client, body: bytes, encoding: str, status: int, text: str) -> None:
    answer = await client.infer(body, headers={"Content-Encoding": encoding})
    assert answer.status == status
    assert text in answer.error


async def test_the_limit_counts_inflated_bytes(client: Client) -> None:
    bomb = gzip.compress(b" " * 100_000)
    assert len(bomb) < 2000
    answer = await client.infer(bomb, "small", {"Content-Encoding": "gzip"})
    assert answer.status == 413
    assert "2000 bytes once inflated" in answer.error


async def test_200_megabytes_cost_nothing(state: Running) -> None:
    """Refused before it is read, although the client sends all of it without waiting."""
    client = await state.client()
    before = peak_bytes()
    size, chunk = 200_000_000, b" " * 1_000_000
    await client.send(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % size)
    sending = asyncio.create_task(send_all(client, chunk, size))
    answer = await client.answer()
    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    assert "67108864 bytes" in answer.error
    await sending
    assert peak_bytes() - before < 30_000_000


async def test_200_megabytes_in_chunks(state: Running) -> None:
    """Without a Content-Length as much is read as the limit allows."""
    client = await state.client()
    await client.send(b"POST /v2/models/small/infer HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
    sending = asyncio.create_task(send_all(client, b"f4240\r\n" + b" " * 1_000_000 + b"\r\n", 200_000_000))
    answer = await client.answer()
    assert answer.status == 413
    await sending
    assert state.server.buffered == 0


async def send_all(client: Client, chunk: bytes, size: int) -> None:
    for _ in range(size // len(chunk)):
        try:
            await client.send(chunk)
        except ConnectionError:
            return


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_data_far_longer_than_its_shape_is_not_decoded(client: Client) -> None:
    answer = await client.infer({"inputs": [row([0] * 1_000_000)]})
    assert answer.status == 400
    assert "too many for the 32 elements" in answer.error
