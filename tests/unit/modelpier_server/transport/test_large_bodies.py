"""Large JSON bodies beside small requests on one server."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelpier_server.offload import LARGE, Decoder
from modelpier_server.transport import Extras
from support import onnx_models
from support.serving import Running, request_bytes, running, servable, tensor, until

SMALL = {"inputs": [tensor([1, 2, 3])]}
INFER = "/v2/models/m/infer"


def large(**changes: object) -> bytes:
    rows = LARGE // 4
    return json.dumps({"inputs": [{**tensor([1, 2, 3] * rows, shape=[rows, 3]), **changes}]}).encode()


@pytest.fixture
async def helped(tmp_path: Path) -> AsyncIterator[tuple[Running, Decoder]]:
    decoder = Decoder()
    try:
        async with running(servable(onnx_models.identity(), tmp_path), extras=Extras(decoder=decoder)) as state:
            yield state, decoder
    finally:
        decoder.close()


async def test_a_helper_is_started_for_the_first_large_body(helped: tuple[Running, Decoder]) -> None:
    state, decoder = helped
    client = await state.client()
    assert (await client.infer(SMALL)).status == 200
    assert decoder.pid is None
    answer = await client.infer(large())
    assert answer.status == 200
    assert answer.json["outputs"][0]["data"][:4] == [1, 2, 3, 1]
    assert decoder.pid is not None
    wrong = await client.infer(large(datatype="FP64"))
    assert wrong.status == 400
    assert "inputs[0].datatype" in wrong.error
    assert not state.server.buffered


async def test_small_requests_are_answered_while_a_large_one_is_decoded(helped: tuple[Running, Decoder]) -> None:
    state, decoder = helped
    client, other = await state.client(), await state.client()
    assert (await client.infer(large())).status == 200
    assert decoder.pid is not None
    os.kill(decoder.pid, signal.SIGSTOP)
    body = large()
    await client.send(request_bytes("POST", INFER, body))
    await until(lambda: decoder._waiting == 1)
    for _ in range(20):
        assert (await other.infer(SMALL)).status == 200
    assert state.server.unanswered == 1
    assert state.server.buffered == len(body)
    os.kill(decoder.pid, signal.SIGCONT)
    assert (await client.answer()).status == 200
    assert not state.server.buffered


async def test_who_leaves_meanwhile_is_dropped(helped: tuple[Running, Decoder]) -> None:
    state, decoder = helped
    client, other = await state.client(), await state.client()
    assert (await client.infer(large())).status == 200
    assert decoder.pid is not None
    os.kill(decoder.pid, signal.SIGSTOP)
    await client.send(request_bytes("POST", INFER, large()))
    await until(lambda: decoder._waiting == 1)
    client.close()
    await until(lambda: decoder._waiting == 0 and not state.server.buffered)
    os.kill(decoder.pid, signal.SIGCONT)
    assert (await other.infer(large())).status == 200
    assert state.shelf.servables["m"]._metrics.success == 2
