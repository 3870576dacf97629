"""Bodies that a helper decodes: the same tensors and the same errors as here, and what its end means."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpier_server.contract import TensorSpec
from modelpier_server.errors import InvalidRequest, QueueFull, Unavailable
from modelpier_server.offload import Decoder, decoder
from modelpier_server.protocol.infer_request import InferRequest, decode
from modelpier_server.protocol.signature import Signature

SIGNATURE = Signature.of(
    (TensorSpec("x", "FP32", (-1, 3)), TensorSpec("s", "BYTES", (-1,))), (TensorSpec("y", "FP32", (-1, 3)),)
)
X: dict[str, object] = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
S: dict[str, object] = {"name": "s", "shape": [2], "datatype": "BYTES", "data": ["a", "é"]}
GOOD: dict[str, object] = {"id": "i", "inputs": [X, S], "parameters": {"priority": 2, "timeout": 500}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.fixed_dictionaries({}, optional={
    "name": st.sampled_from(["x", "s", "other"]) | JSON,
    "shape": st.sampled_from([[1, 3], [2], [0, 3], [-1, 3]]) | JSON,
    "datatype": st.sampled_from(["FP32", "BYTES", "INT64"]) | JSON,
    "data": st.lists(st.floats() | st.text(max_size=4), max_size=4) | JSON,
})  # fmt: skip
MESSAGES = st.fixed_dictionaries(
    {"inputs": st.lists(st.sampled_from([X, S]) | ENTRIES, max_size=3)},
    optional={"id": JSON, "parameters": JSON, "outputs": JSON},
)
BODIES = (
    MESSAGES.map(lambda message: json.dumps(message).encode())
    | st.binary(max_size=40)
    | st.integers(0, len(json.dumps(GOOD))).map(lambda end: json.dumps(GOOD).encode()[:end])
)


@pytest.fixture
async def helped() -> AsyncIterator[Decoder]:
    made = Decoder()
    yield made
    made.close()


def _said(request: InferRequest) -> object:
    arrays = {name: (a.dtype, a.shape, a.tolist()) for name, a in request.inputs.items()}
    rest = (request.id, request.outputs, request.binary, request.classes, request.priority, request.timeout)
    return repr(arrays), rest


async def _there(helped: Decoder, body: bytes, length: int | None) -> object:
    try:
        return _said(await helped.decode(body, length, SIGNATURE))
    except InvalidRequest as error:
        return str(error)


def _here(body: bytes, length: int | None) -> object:
    try:
        return _said(decode(body, length, SIGNATURE))
    except InvalidRequest as error:
        return str(error)


def test_the_helper_says_what_this_process_says() -> None:
    with asyncio.Runner() as runner:
        helped = Decoder()
        try:

            @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
            @given(BODIES, st.none() | st.integers(0, 60))
            def same(body: bytes, length: int | None) -> None:
                assert runner.run(_there(helped, body, length)) == _here(body, length)

            same()
            first = helped.pid
            assert first is not None
            for body in (json.dumps(GOOD).encode(), b'{"inputs":[{"name":"' + b"n" * 500_000 + b'"}]}'):
                assert runner.run(_there(helped, body, None)) == _here(body, None)
            binary = np.arange(3, dtype=np.float32).tobytes()
            entry = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}
            head = json.dumps({"inputs": [entry, S], "outputs": [{"name": "y"}]}).encode()
            assert runner.run(_there(helped, head + binary, len(head))) == _here(head + binary, len(head))
            assert isinstance(_here(head + binary, len(head)), tuple)
            assert helped.pid == first
        finally:
            helped.close()


async def test_what_a_large_body_took_is_given_back(helped: Decoder) -> None:
    rows = 300_000
    numbers = np.arange(rows * 3, dtype=np.float32)
    wide = {**X, "shape": [rows, 3], "data": numbers.tolist()}
    body = json.dumps({"inputs": [wide, S]}).encode()
    assert len(body) > decoder.KEPT / 2
    for _ in range(2):
        request = await helped.decode(body + b" " * decoder.KEPT, None, SIGNATURE)
        assert (request.inputs["x"].ravel() == numbers).all()
        assert helped._helper is not None
        assert helped._helper._arena.capacity < decoder.KEPT
        assert await _there(helped, json.dumps(GOOD).encode(), None) == _here(json.dumps(GOOD).encode(), None)


async def test_a_helper_that_ends_in_the_middle_is_told_and_replaced(helped: Decoder) -> None:
    good = json.dumps(GOOD).encode()
    await helped.decode(good, None, SIGNATURE)
    for _ in range(decoder.STARTS):
        pid = helped.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        asked = asyncio.ensure_future(helped.decode(good, None, SIGNATURE))
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Unavailable, match="try again"):
            await asked
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert _said(await helped.decode(good, None, SIGNATURE)) == _here(good, None)
    assert helped.pid is None  # it has ended too often: this process decodes


async def test_no_helper_to_be_had_is_no_error(helped: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    good = json.dumps(GOOD).encode()
    assert _said(await helped.decode(good, None, SIGNATURE)) == _here(good, None)
    assert helped.pid is None


async def test_waiting_is_bounded_and_who_leaves_makes_room(helped: Decoder) -> None:
    good = json.dumps(GOOD).encode()
    await helped.decode(good, None, SIGNATURE)
    assert helped.pid is not None
    os.kill(helped.pid, signal.SIGSTOP)
    asked = [asyncio.ensure_future(helped.decode(good, None, SIGNATURE)) for _ in range(decoder.MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await helped.decode(good, None, SIGNATURE)
    for one in asked[1:]:
        one.cancel()
    await asyncio.gather(*asked[1:], return_exceptions=True)
    more = asyncio.ensure_future(helped.decode(good, None, SIGNATURE))
    os.kill(helped.pid, signal.SIGCONT)
    assert _said(await asked[0]) == _said(await more) == _here(good, None)
