"""Bodies that a helper decodes: the same tensors and the same errors as here, and what its end means."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpier_server.contract import TensorSpec
from modelpier_server.errors import InvalidRequest, PayloadTooLarge, QueueFull, Unavailable
from modelpier_server.offload import Decoder, Large, decoder
from modelpier_server.protocol.forms import Decoded, Form
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
EVERY_FORM = (
    (Form.INFER, GOOD),
    (Form.CLOUD, GOOD),
    (Form.CLOUD, {"instances": [{"x": [1, 2, 3], "s": "a"}, {"x": [4, 5, 6], "s": {"b64": "w6k="}}]}),
    (Form.PREDICT, {"inputs": {"x": [[1, 2, 3]], "s": ["a"]}}),
    (Form.PREDICT, {"instances": [{"x": [1, 2, 3], "s": "a"}]}),
    (Form.GENERATE, {"x": [1, 2, 3], "text_input": "a", "id": "7", "parameters": {"top_k": 3}}),
    (Form.PLAIN, {"model_name": "m", "input_data": {"x": [[1, 2, 3]], "s": ["a"]}}),
)  # fmt: skip
BODIES = (
    st.sampled_from([json.dumps(good).encode() for _, good in EVERY_FORM])
    | MESSAGES.map(lambda message: json.dumps(message).encode())
    | st.binary(max_size=40)
    | st.integers(0, len(json.dumps(GOOD))).map(lambda end: json.dumps(GOOD).encode()[:end])
)


@pytest.fixture
async def helped() -> AsyncIterator[Decoder]:
    made = Decoder()
    yield made
    made.close()


def of(body: bytes, length: int | None = None, form: Form = Form.INFER, memory: int = 1 << 40) -> Large:
    return Large(form, body, length, SIGNATURE, memory)


def _said(request: Decoded) -> object:
    arrays = {name: (a.dtype, a.shape, a.tolist()) for name, a in request.inputs.items()}
    rest = {name: value for name, value in msgspec.structs.asdict(request).items() if name != "inputs"}
    return type(request), repr(arrays), rest


async def _there(helped: Decoder, large: Large) -> object:
    try:
        return _said(await helped.decode(large))
    except (InvalidRequest, PayloadTooLarge) as error:
        return type(error), str(error)


def _here(large: Large) -> object:
    try:
        return _said(large.decode())
    except (InvalidRequest, PayloadTooLarge) as error:
        return type(error), str(error)


def test_the_helper_says_what_this_process_says() -> None:
    with asyncio.Runner() as runner:
        helped = Decoder()
        try:

            @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
            @given(BODIES, st.none() | st.integers(0, 60), st.sampled_from(Form), st.sampled_from([200, 1 << 40]))
            def same(body: bytes, length: int | None, form: Form, memory: int) -> None:
                large = of(body, length, form, memory)
                assert runner.run(_there(helped, large)) == _here(large)

            same()
            first = helped.pid
            assert first is not None
            for body in (json.dumps(GOOD).encode(), b'{"inputs":[{"name":"' + b"n" * 500_000 + b'"}]}'):
                assert runner.run(_there(helped, of(body))) == _here(of(body))
            for form, good in EVERY_FORM:
                large = of(json.dumps(good).encode(), None, form)
                assert runner.run(_there(helped, large)) == _here(large)
                assert len(large.decode().inputs) == 2
            binary = np.arange(3, dtype=np.float32).tobytes()
            entry = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}
            head = json.dumps({"inputs": [entry, S], "outputs": [{"name": "y"}]}).encode()
            large = of(head + binary, len(head))
            assert runner.run(_there(helped, large)) == _here(large)
            assert len(large.decode().inputs) == 2
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
        request = await helped.decode(of(body + b" " * decoder.KEPT))
        assert (request.inputs["x"].ravel() == numbers).all()
        assert helped._helper is not None
        assert helped._helper._arena.capacity < decoder.KEPT
        assert await _there(helped, of(json.dumps(GOOD).encode())) == _here(of(json.dumps(GOOD).encode()))


async def test_a_helper_that_ends_in_the_middle_is_told_and_replaced(helped: Decoder) -> None:
    good = of(json.dumps(GOOD).encode())
    await helped.decode(good)
    for _ in range(decoder.STARTS - 1):
        pid = helped.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        asked = asyncio.ensure_future(helped.decode(good))
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Unavailable, match="try again"):
            await asked
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert _said(await helped.decode(good)) == _here(good)
    pid = helped.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Unavailable, match="try again"):
        await helped.decode(good)
    # Whatever has ended all of them must not be decoded by the server itself.
    with pytest.raises(Unavailable, match="ended too often") as told:
        await helped.decode(good)
    assert 0 < (told.value.retry_after or 0) <= decoder.WINDOW


async def test_no_helper_to_be_had_is_no_error(helped: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    good = of(json.dumps(GOOD).encode())
    assert _said(await helped.decode(good)) == _here(good)
    assert helped.pid is None


async def test_waiting_is_bounded_and_who_leaves_makes_room(helped: Decoder) -> None:
    good = of(json.dumps(GOOD).encode())
    await helped.decode(good)
    assert helped.pid is not None
    os.kill(helped.pid, signal.SIGSTOP)
    asked = [asyncio.ensure_future(helped.decode(good)) for _ in range(decoder.MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await helped.decode(good)
    for one in asked[1:]:
        one.cancel()
    await asyncio.gather(*asked[1:], return_exceptions=True)
    more = asyncio.ensure_future(helped.decode(good))
    os.kill(helped.pid, signal.SIGCONT)
    assert _said(await asked[0]) == _said(await more) == _here(good)
