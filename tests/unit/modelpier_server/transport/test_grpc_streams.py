"""The gRPC port: streams of requests."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from modelpier_server.transport.grpc import GrpcLimits
from support import onnx_models
from support.grpc_serving import Running, floats, row, running
from support.serving import gated, planned, servable, until


async def test_a_stream_answers_in_order_and_goes_on_after_errors(tmp_path: Path) -> None:
    slow, session = gated(onnx_models.identity(), tmp_path, planned("slow"))
    async with running(slow, servable(onnx_models.identity(), tmp_path, planned("m"))) as state:
        stream = state.client.stream()
        await stream.write(row(0, 0, 0, model="slow", id="a"))
        await stream.write(row(1, 1, 1, id="b"))
        await stream.write(row(1, id="c"))
        await stream.write(row(2, 2, 2, model="q", id="d"))
        await until(lambda: slow.in_flight == 1)
        session.gate.set()
        await stream.done_writing()
        answers = [answer async for answer in stream]
        assert [answer.infer_response.id for answer in answers] == ["a", "b", "c", "d"]
        assert [bool(answer.error_message) for answer in answers] == [False, False, True, True]
        assert answers[2].error_message.startswith("inputs[0].shape")
        assert floats(answers[1].infer_response) == [1, 1, 1]
        assert answers[0].infer_response.parameters["triton_final_response"].bool_param
        assert await stream.code() is StatusCode.OK


async def test_a_stream_is_read_as_far_as_it_is_answered(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served, limits=GrpcLimits(max_in_flight=3)) as state:
        stream = state.client.stream()
        for i in range(10):
            await stream.write(row(i, i, i))
        await stream.done_writing()
        await until(lambda: served.in_flight == 3)
        await asyncio.sleep(0.05)  # more would be taken now
        assert served.in_flight == 3
        session.gate.set()
        assert [floats(answer.infer_response)[0] async for answer in stream] == list(range(10))
        await until(lambda: state.server._edge.buffered == 0)


async def test_a_stream_may_end_at_its_first_error(identity: Running) -> None:
    stream = identity.client.stream(metadata=(("triton_grpc_error", "true"),))
    await stream.write(row(1, 2, 3))
    assert floats((await stream.read()).infer_response) == [1, 2, 3]
    await stream.write(row(1))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stream.read()
    assert failure.value.code() is StatusCode.INVALID_ARGUMENT


async def test_a_stream_that_is_given_up_frees_its_places(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served) as state:
        stream = state.client.stream()
        for i in range(5):
            await stream.write(row(i, i, i))
        await until(lambda: served.in_flight == 5)
        stream.cancel()
        await until(lambda: served.in_flight == 0 and state.server.unanswered == 0)
        assert state.server._edge.buffered == 0
        session.gate.set()
