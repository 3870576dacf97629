"""What clients see when a server has too much to do, or its model fails."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from modelpier_server.contract import Limits
from modelpier_server.scheduler import Servable
from modelpier_server.telemetry import Failure
from support import onnx_models
from support.serving import Gated, Running, gated, planned, request_bytes, running, servable, tensor, until

GOOD = json.dumps({"inputs": [tensor([1, 2, 3])]}).encode()
INFER = "/v2/models/m/infer"


@pytest.fixture
async def blocked(tmp_path: Path) -> AsyncIterator[tuple[Running, Servable, Gated]]:
    plan = planned(instances=1, limits=Limits(max_queue=2, request_timeout=0.3, max_body_bytes=1000))
    served, session = gated(onnx_models.identity(), tmp_path, plan, rows=4)
    async with running(served) as state:
        yield state, served, session
        session.gate.set()


def _running(served: Servable, session: Gated, count: int) -> bool:
    """So many requests are there, and the first of them holds the session."""
    return served.in_flight == count and bool(session.runs)


async def test_a_full_queue_is_429_and_the_rest_is_served(blocked: tuple[Running, Servable, Gated]) -> None:
    state, served, session = blocked
    clients = [await state.client() for _ in range(4)]
    for count, client in enumerate(clients[:3], 1):
        await client.send(request_bytes("POST", INFER, GOOD))
        await until(partial(_running, served, session, count))
    refused = await clients[3].request("POST", INFER, GOOD)
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert "2 requests wait" in refused.error
    session.gate.set()
    for client in clients[:3]:
        assert (await client.answer()).status == 200
    assert (await clients[3].request("POST", INFER, GOOD)).status == 200


async def test_an_answer_that_takes_too_long_is_504(blocked: tuple[Running, Servable, Gated]) -> None:
    state, _, session = blocked
    client = await state.client()
    answer = await client.request("POST", INFER, GOOD)
    assert answer.status == 504
    session.gate.set()
    assert (await client.request("POST", INFER, GOOD)).status == 200


@pytest.mark.parametrize("path", [INFER, "/model"])
async def test_who_leaves_is_not_run(blocked: tuple[Running, Servable, Gated], path: str) -> None:
    state, served, session = blocked
    first, second = await state.client(), await state.client()
    await first.send(request_bytes("POST", INFER, GOOD))
    await until(lambda: session.runs)
    body = GOOD if path == INFER else b'{"model_name":"m","input_data":[[1,2,3]]}'
    await second.send(request_bytes("POST", path, body))
    await until(lambda: served.in_flight == 2)
    second.close()
    await until(lambda: served.in_flight == 1)
    session.gate.set()
    assert (await first.answer()).status == 200
    assert session.runs == [1]


async def test_the_models_own_limit_holds_for_the_plain_route(blocked: tuple[Running, Servable, Gated]) -> None:
    state, *_ = blocked
    body = b'{"model_name":"m","input_data":[[1,2,3]]}' + b" " * 1000
    client = await state.client()
    assert (await client.request("POST", "/model", body)).status == 413


@pytest.mark.parametrize("largest", [100_000, 100_000_000])
async def test_the_plain_route_takes_what_the_most_generous_model_takes(tmp_path: Path, largest: int) -> None:
    models = [
        servable(onnx_models.identity(), tmp_path, planned(name, limits=Limits(max_body_bytes=size)))
        for name, size in (("m", largest), ("small", 1000))
    ]
    async with running(*models) as state:
        client = await state.client()
        head = {"Content-Length": largest, "Expect": "100-continue"}
        await client.send(request_bytes("POST", "/model", b"", head))
        assert (await client.answer()).status == 100
        client = await state.client()
        await client.send(request_bytes("POST", "/model", b"", {**head, "Content-Length": largest + 1}))
        assert (await client.answer()).status == 413


async def test_a_model_that_fails_is_a_500_for_who_is_to_blame_alone(tmp_path: Path) -> None:
    async with running(servable(onnx_models.reshape_poison(), tmp_path)) as state:
        client = await state.client()
        inputs = [tensor([1, 2, 3]), tensor([7], name="k", shape=[1], datatype="INT64")]
        answer = await client.infer({"inputs": inputs})
        assert answer.status == 500
        assert "the model failed" in answer.error
        inputs[1]["data"] = [3]
        assert (await client.infer({"inputs": inputs})).status == 200


@pytest.fixture
async def crowded(blocked: tuple[Running, Servable, Gated]) -> tuple[Running, Servable, Gated]:
    """One request runs and two wait: there is no room."""
    state, served, session = blocked
    for count in (1, 2, 3):
        await (await state.client()).send(request_bytes("POST", INFER, GOOD))
        await until(partial(_running, served, session, count))
    return blocked


@pytest.mark.parametrize("path", [INFER, "/v1/models/m:predict", "/v2/models/m/generate"])
async def test_a_full_queue_is_asked_before_the_body_is_decoded(
    crowded: tuple[Running, Servable, Gated], path: str
) -> None:
    state, served, _ = crowded
    client = await state.client()
    refused = served._metrics.failures[Failure.REJECTED]
    for _ in range(3):
        answer = await client.request("POST", path, b"no JSON")
        assert answer.status == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert "2 requests wait" in answer.error
        assert "date" in answer.headers
    assert served._metrics.failures[Failure.REJECTED] == refused + 3
    assert served._metrics.failures[Failure.OTHER] == 0
    assert state.metrics.http_responses[429] == 3


async def test_the_body_of_a_refused_request_is_not_kept(tmp_path: Path) -> None:
    plan = planned(instances=1, limits=Limits(max_queue=1, max_body_bytes=1 << 20))
    served, session = gated(onnx_models.identity(), tmp_path, plan, rows=1)
    async with running(served) as state:
        for count in (1, 2):
            await (await state.client()).send(request_bytes("POST", INFER, GOOD))
            await until(partial(_running, served, session, count))
        held = state.server.buffered
        client = await state.client()
        await client.send(request_bytes("POST", INFER, b"", {"Content-Length": 300_000, "Content-Encoding": "gzip"}))
        await client.send(b"x" * 200_000)
        await until(lambda: any(c._size > 100_000 for c in state.server.connections))
        assert state.server.buffered == held
        await client.send(b"x" * 100_000)
        assert (await client.answer()).status == 429  # what is no gzip was not inflated
        session.gate.set()
        await until(lambda: not served.in_flight)
        assert (await client.request("POST", INFER, GOOD)).status == 200  # on the same connection


async def test_who_asks_before_sending_a_body_is_refused_without_it(crowded: tuple[Running, Servable, Gated]) -> None:
    state, *_ = crowded
    client = await state.client()
    head = {"Content-Length": "00900", "Expect": "100-continue"}
    await client.send(request_bytes("POST", INFER, b"", head))
    assert (await client.answer()).status == 429
    assert await client.closed()
