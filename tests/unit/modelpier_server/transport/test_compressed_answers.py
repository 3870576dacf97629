"""Answers that are compressed: only where the client asks, only where it helps, and still in order."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from modelpier_server.protocol import compress
from support import onnx_models
from support.serving import Running, request_bytes, running, servable, tensor

INFER = "/v2/models/m/infer"


def message(rows: int) -> bytes:
    return json.dumps({"inputs": [tensor([1.5] * 3 * rows, shape=[rows, 3])]}).encode()


async def both(state: Running, body: bytes, accept: str) -> tuple[bytes, dict[str, str], bytes]:
    """The answer without asking, and headers and body of the one with."""
    client = await state.client()
    plain = await client.infer(body)
    asked = await client.infer(body, headers={"Accept-Encoding": accept})
    assert (plain.status, asked.status) == (200, 200)
    assert "content-encoding" not in plain.headers
    return plain.body, asked.headers, asked.body


@pytest.mark.parametrize("rows", [500, 20_000])  # on the loop, in a thread
async def test_gzip(tmp_path: Path, rows: int) -> None:
    async with running(servable(onnx_models.identity(), tmp_path)) as state:
        plain, headers, packed = await both(state, message(rows), "gzip, deflate, br")
        assert headers["content-encoding"] == "gzip"
        assert headers["vary"] == "accept-encoding"
        assert headers["content-type"] == "application/json"
        assert gzip.decompress(packed) == plain
        assert len(packed) < len(plain) / 10


async def test_deflate(tmp_path: Path) -> None:
    async with running(servable(onnx_models.identity(), tmp_path)) as state:
        plain, headers, packed = await both(state, message(500), "deflate")
        assert headers["content-encoding"] == "deflate"
        assert zlib.decompress(packed) == plain


async def test_a_small_answer_is_sent_as_it_is(tmp_path: Path) -> None:
    async with running(servable(onnx_models.identity(), tmp_path)) as state:
        _, headers, _ = await both(state, message(2), "gzip")
        assert "content-encoding" not in headers


@pytest.mark.parametrize("rows", [400, 50_000])
async def test_what_does_not_get_smaller_is_sent_as_it_is(tmp_path: Path, rows: int) -> None:
    noise = np.frombuffer(os.urandom(rows * 12), np.uint8).astype(np.uint8)
    async with running(servable(onnx_models.identity("UINT8"), tmp_path)) as state:
        head = json.dumps({
            "inputs": [{
                "name": "x", "shape": [rows * 4, 3], "datatype": "UINT8", "parameters": {"binary_data_size": rows * 12}
            }],
            "parameters": {"binary_data_output": True},
        }).encode()  # fmt: skip
        client = await state.client()
        headers = {"Accept-Encoding": "gzip", "Inference-Header-Content-Length": len(head)}
        answer = await client.infer(head + noise.tobytes(), headers=headers)
        assert answer.status == 200
        assert "content-encoding" not in answer.headers
        assert answer.body.endswith(noise.tobytes())


async def test_answers_stay_in_order(tmp_path: Path) -> None:
    async with running(servable(onnx_models.identity(), tmp_path)) as state:
        client = await state.client()
        asks = {"Accept-Encoding": "gzip"}
        await client.send(request_bytes("POST", INFER, message(20_000), asks) + request_bytes("GET", "/v2"))
        first, second = await client.answer(), await client.answer()
        assert first.headers["content-encoding"] == "gzip"
        assert second.json["name"] == "modelpier"


async def test_other_routes_too_but_not_head(tmp_path: Path) -> None:
    async with running(servable(onnx_models.identity(), tmp_path)) as state:
        client = await state.client()
        asks = {"Accept-Encoding": "gzip"}
        whole = await client.request("HEAD", "/openapi.json", headers=asks)
        assert "content-encoding" not in whole.headers
        packed = await client.request("GET", "/openapi.json", headers=asks)
        assert len(gzip.decompress(packed.body)) == int(whole.headers["content-length"])


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("x-gzip", "gzip"),
        ("*", "gzip"),
        ("deflate, gzip", "gzip"),
        ("gzip;q=0.1, deflate;q=0.9", "deflate"),
        ("GZIP ; q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0.5, identity", None),
        ("*;q=0", None),
        ("br", None),
        ("", None),
        ("gzip;q=nonsense", None),
        ("gzip;level=9", "gzip"),
    ],
)
def test_what_a_client_wants(accept: str, coding: str | None) -> None:
    assert compress.coding_of(accept) == coding


@pytest.mark.parametrize("sizes", [[70_000], [10, 65_526, 5], [65_536], [65_535, 2], [1, 200_000, 3]])
def test_parts_of_any_size(sizes: list[int]) -> None:
    parts = [bytes([index]) * size for index, size in enumerate(sizes)]
    packed = compress.compress(parts, "gzip")
    assert packed is not None
    assert gzip.decompress(packed) == b"".join(parts)


def test_what_begins_like_noise_is_not_looked_at_to_its_end() -> None:
    assert compress.compress([os.urandom(compress.SAMPLE), bytes(1_000_000)], "gzip") is None
