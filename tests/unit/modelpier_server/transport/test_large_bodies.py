"""Large JSON bodies beside small requests on one server."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelpier_server.contract import Limits
from modelpier_server.offload import LARGE, Decoder
from modelpier_server.transport import Extras
from support import onnx_models
from support.serving import Running, planned, request_bytes, running, servable, tensor, until

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


ROWS = LARGE // 4
TRIPLES = [[1, 2, 3]] * ROWS
OTHERS: dict[str, tuple[str, object, str]] = {
    "predict": ("/v1/models/m:predict", {"instances": TRIPLES}, "predictions"),
    "generate": ("/v2/models/m/generate", {"x": [1, 2, 3] * ROWS}, "y"),
    "plain": ("/model", {"model_name": "m", "input_data": TRIPLES}, "output_data"),
    "invocations": ("/invocations", {"instances": TRIPLES}, "predictions"),
    "infer by invocations": ("/invocations", {"inputs": [tensor([1, 2, 3] * ROWS, shape=[ROWS, 3])]}, "outputs"),
}


@pytest.mark.parametrize(("path", "body", "field"), OTHERS.values(), ids=OTHERS.keys())
async def test_every_route_leaves_large_bodies_to_the_helper(
    helped: tuple[Running, Decoder], path: str, body: object, field: str
) -> None:
    state, decoder = helped
    client, other = await state.client(), await state.client()
    raw = json.dumps(body).encode()
    answer = await client.request("POST", path, raw)
    assert answer.status == 200, answer.body[:200]
    value = answer.json[field]
    assert value[:3] == [1, 2, 3] or value[0] == [1, 2, 3] or value[0]["data"][:3] == [1, 2, 3]
    assert decoder.pid is not None
    os.kill(decoder.pid, signal.SIGSTOP)
    await client.send(request_bytes("POST", path, raw))
    await until(lambda: decoder._waiting == 1)
    assert (await other.infer(SMALL)).status == 200
    os.kill(decoder.pid, signal.SIGCONT)
    assert (await client.answer()).status == 200
    wrong = await client.request("POST", path, raw.replace(b"1, 2, 3", b"1, 2, [3]", 1))
    assert wrong.status == 400
    assert wrong.error
    assert not state.server.buffered


@pytest.mark.parametrize("path", ["/v1/models/m:predict", INFER, "/invocations"])
async def test_what_would_take_too_much_memory_is_told_before(tmp_path: Path, path: str) -> None:
    """Lists of one element take many times as much as what is written of them."""
    decoder = Decoder()
    limits = Limits(max_body_bytes=LARGE * 4)
    served = servable(onnx_models.identity(shape=("n", 1)), tmp_path, planned(limits=limits))
    try:
        async with running(served, extras=Extras(decoder=decoder)) as state:
            client = await state.client()
            rows = [[1]] * (LARGE * 3 // 5)
            inputs = [tensor(rows, shape=[len(rows), 1])]
            body: dict[str, object] = {"instances": rows} if "predict" in path else {"inputs": inputs}
            answer = await client.request("POST", path, json.dumps(body).encode())
            assert answer.status == 413
            assert "16 times limits.maxBodyBytes" in answer.error
            flat = [tensor([1] * len(rows), shape=[len(rows), 1])]
            assert (await client.infer(json.dumps({"inputs": flat}).encode())).status == 200
    finally:
        decoder.close()


@pytest.mark.parametrize("path", ["/v1/models/m:predict", INFER])
async def test_a_version_that_goes_meanwhile_has_its_request_taken_by_the_next(
    helped: tuple[Running, Decoder], tmp_path: Path, path: str
) -> None:
    state, decoder = helped
    client = await state.client()
    assert (await client.infer(large())).status == 200
    assert decoder.pid is not None
    os.kill(decoder.pid, signal.SIGSTOP)
    body = large() if path == INFER else json.dumps({"instances": TRIPLES}).encode()
    await client.send(request_bytes("POST", path, body))
    await until(lambda: decoder._waiting == 1)
    old = state.shelf.servables["m"]
    state.shelf.servables["m"] = servable(onnx_models.identity(), tmp_path, planned(version="2"))
    assert await old.drain(1)
    old.close()
    os.kill(decoder.pid, signal.SIGCONT)
    assert (await client.answer()).status == 200
    assert state.shelf.servables["m"]._metrics.success == 1
