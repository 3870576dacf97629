"""Damaged requests: whatever comes, the answers are proper HTTP, no handler fails, and the server goes on."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

from support import onnx_models
from support.serving import Running, request_bytes, running, servable, tensor

INFER = "/v2/models/m/infer"
BODY = json.dumps({"id": "1", "inputs": [tensor([1, 2, 3])]}).encode()
BINARY = json.dumps({
    "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}]
}).encode()  # fmt: skip
SEEDS = [
    request_bytes("POST", INFER, BODY, {"Content-Type": "application/json"}),
    request_bytes("POST", INFER, BINARY + b"\0" * 12, {"Inference-Header-Content-Length": len(BINARY)}),
    request_bytes("POST", INFER, b"\0" * 12, {"Inference-Header-Content-Length": 0}),
    request_bytes("POST", "/model", b'{"model_name":"m","input_data":[[1,2,3]]}'),
    b"POST /model HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    request_bytes("GET", "/v2/models/m/versions/1?a=b"),
]
ALLOWED = {100, 200, 400, 404, 405, 408, 413, 415, 417, 431, 501, 503, 505}


def damaged(rng: random.Random) -> bytes:
    raw = bytearray(b"".join(rng.choice(SEEDS) for _ in range(rng.randint(1, 3))))
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(raw))
        match rng.randrange(5):
            case 0:
                raw[at] = rng.randrange(256)
            case 1:
                del raw[at : at + rng.randint(1, 20)]
            case 2:
                raw[at:at] = rng.randbytes(rng.randint(1, 8))
            case 3:
                raw[at:at] = raw[at : at + rng.randint(1, 60)]
            case _:
                raw[at:at] = rng.choice([b"\r\n", b"[", b"9" * 20, b"-1", b"null", b"1e999", b'"', b"\n", b"}"])
        if not raw:
            break
    return bytes(raw)


async def answers(state: Running, raw: bytes) -> list[int]:
    """Statuses of all that comes back until nothing more can come."""
    client = await state.client()
    statuses: list[int] = []
    try:
        await client.send(raw)
        client.writer.write_eof()
        while True:
            statuses.append((await client.answer()).status)
    except (asyncio.IncompleteReadError, ConnectionError):
        return statuses
    finally:
        client.close()
        state.clients.remove(client)


@pytest.mark.parametrize("seed", range(8))
async def test_damaged_requests(tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(seed)
    async with running(servable(onnx_models.identity(), tmp_path)) as state:
        for _ in range(60):
            raw = damaged(rng)
            assert set(await answers(state, raw)) <= ALLOWED, raw
        client = await state.client()
        assert (await client.infer(BODY)).status == 200
        assert state.server.buffered == 0
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]
