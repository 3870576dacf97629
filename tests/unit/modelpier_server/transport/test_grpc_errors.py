"""The gRPC port: what is wrong, and what is too much."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import StatusCode

from modelpier_server.contract import Limits
from modelpier_server.errors import (
    Cancelled,
    DeadlineExceeded,
    Forbidden,
    InferenceFailed,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    OutOfMemory,
    OutOfScope,
    PayloadTooLarge,
    QueueFull,
    ServerError,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
)
from modelpier_server.protocol.grpc.generated import inference_pb2 as pb
from modelpier_server.protocol.grpc.generated.status_pb2 import RetryInfo, Status
from modelpier_server.transport.grpc import GrpcLimits
from modelpier_server.transport.grpc.status import code_of
from support import onnx_models
from support.grpc_serving import Running, floats, message, one, refused, row, running, told
from support.serving import gated, planned, servable, until


# ---------------------------------------------------------------------------------------------- errors
def errors(kind: type[ServerError] = ServerError) -> set[type[ServerError]]:
    return {kind}.union(*(errors(below) for below in kind.__subclasses__()))


CODES = {
    ServerError: StatusCode.INTERNAL,
    InvalidRequest: StatusCode.INVALID_ARGUMENT,
    Unauthorized: StatusCode.UNAUTHENTICATED,
    Forbidden: StatusCode.PERMISSION_DENIED,
    OutOfScope: StatusCode.PERMISSION_DENIED,
    NotFound: StatusCode.NOT_FOUND,
    MethodNotAllowed: StatusCode.UNIMPLEMENTED,
    PayloadTooLarge: StatusCode.RESOURCE_EXHAUSTED,
    UnsupportedMedia: StatusCode.UNIMPLEMENTED,
    QueueFull: StatusCode.RESOURCE_EXHAUSTED,
    Cancelled: StatusCode.CANCELLED,
    InferenceFailed: StatusCode.INTERNAL,
    OutOfMemory: StatusCode.INTERNAL,
    Unavailable: StatusCode.UNAVAILABLE,
    DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
}


def test_every_error_has_a_code() -> None:
    assert {kind: code_of(kind("text")) for kind in errors()} == CODES


async def test_a_wrong_request_is_told_what_is_wrong(identity: Running) -> None:
    for request, code, text in (
        (row(1, 2), StatusCode.INVALID_ARGUMENT, "inputs[0].shape: [1, 2] does not fit"),
        (message(("x", "FP32", [2**40, 3], b"")), StatusCode.INVALID_ARGUMENT, "inputs[0].shape: "),
        (row(1, 2, 3, model="q"), StatusCode.NOT_FOUND, "model 'q'"),
        (row(1, 2, 3, model_version="9"), StatusCode.NOT_FOUND, "model 'm' version '9'"),
        (pb.ModelInferRequest(), StatusCode.NOT_FOUND, "model ''"),
        (b"\xff", StatusCode.INVALID_ARGUMENT, "request: not a inference.ModelInferRequest"),
    ):
        error = await refused(identity.client.infer(request))
        assert (error.code(), told(error)[: len(text)]) == (code, text)
    assert floats(await identity.client.infer(row(1, 2, 3))) == [1, 2, 3]
    assert identity.metrics.grpc_responses == {"INVALID_ARGUMENT": 3, "NOT_FOUND": 3, "OK": 1}


async def test_a_text_that_is_too_long_for_a_header_is_cut(identity: Running) -> None:
    error = await refused(identity.client.infer(row(1, 2, 3, model="é" * 5000)))
    assert error.code() is StatusCode.NOT_FOUND
    assert told(error).endswith("...")


async def test_a_call_without_a_message_and_one_for_nobody(identity: Running) -> None:
    empty: Any = identity.client.channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
    error = await refused(empty(iter([])))
    assert (error.code(), told(error)) == (StatusCode.INVALID_ARGUMENT, "request: the call carries no message")
    assert (await refused(identity.client.call("TraceSetting", b""))).code() is StatusCode.UNIMPLEMENTED


async def test_loading_is_not_for_everybody(identity: Running) -> None:
    for name in ("RepositoryModelLoad", "RepositoryModelUnload"):
        error = await refused(identity.client.call(name, b""))
        assert (error.code(), "loading and unloading" in told(error)) == (StatusCode.PERMISSION_DENIED, True)


async def test_a_mistake_of_the_server_itself(identity: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(identity.shelf, "find", fail)
    error = await refused(identity.client.infer(row(1, 2, 3)))
    assert (error.code(), told(error)) == (StatusCode.INTERNAL, "internal error; the server's log has it")


# ---------------------------------------------------------------------------------------------- limits
async def test_a_full_queue_says_when_to_come_again(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path, planned(instances=1, limits=Limits(max_queue=1)))
    async with running(served) as state:
        calls = [state.client.infer(row(0, 2, 3))]
        await until(lambda: session.runs)
        calls.append(state.client.infer(row(1, 2, 3)))
        await until(lambda: served.in_flight == 2)
        error = await refused(state.client.infer(row(1, 2, 3)))
        assert error.code() is StatusCode.RESOURCE_EXHAUSTED
        trailers = dict(error.trailing_metadata())
        assert trailers["grpc-retry-pushback-ms"] == "1000"
        status = Status.FromString(trailers["grpc-status-details-bin"])
        assert (status.code, status.message) == (8, told(error))
        assert status.details[0].type_url == "type.googleapis.com/google.rpc.RetryInfo"
        assert RetryInfo.FromString(status.details[0].value).retry_delay.seconds == 1
        session.gate.set()
        assert [floats(await call)[0] for call in calls] == [0, 1]


async def test_a_message_is_limited_by_its_model(tmp_path: Path) -> None:
    small = servable(onnx_models.identity(), tmp_path, planned("s", limits=Limits(max_body_bytes=200)))
    large = servable(onnx_models.identity(), tmp_path, planned("l"))
    async with running(small, large, limits=GrpcLimits(max_buffered_bytes=100_000)) as state:
        rows = np.zeros((20, 3), np.float32)
        error = await refused(state.client.infer(one(rows, model="s")))
        text = "message: more than the 200 bytes that this model takes"
        assert (error.code(), told(error)) == (StatusCode.RESOURCE_EXHAUSTED, text)
        assert len(floats(await state.client.infer(one(rows, model="l")))) == 60
        error = await refused(state.client.infer(one(np.zeros((10_000, 3), np.float32), model="l")))
        assert error.code() is StatusCode.RESOURCE_EXHAUSTED


async def test_a_compressed_message_is_limited_by_what_comes_out(tmp_path: Path) -> None:
    async with running(
        servable(onnx_models.identity(), tmp_path), limits=GrpcLimits(max_buffered_bytes=1_000_000)
    ) as state:
        gzip = grpc.Compression.Gzip
        assert len(floats(await state.client.infer(one(np.zeros((1000, 3), np.float32)), compression=gzip))) == 3000
        error = await refused(state.client.infer(one(np.zeros((1_000_000, 3), np.float32)), compression=gzip))
        assert error.code() is StatusCode.RESOURCE_EXHAUSTED


async def test_messages_of_all_calls_together_are_limited(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served, limits=GrpcLimits(max_buffered_bytes=20_000)) as state:
        first = state.client.infer(one(np.zeros((1000, 3), np.float32)))
        await until(lambda: served.in_flight == 1)
        error = await refused(state.client.infer(one(np.zeros((1000, 3), np.float32))))
        assert (error.code(), told(error)[:28]) == (StatusCode.UNAVAILABLE, "the messages of all calls to")
        session.gate.set()
        assert len(floats(await first)) == 3000
        assert len(floats(await state.client.infer(one(np.zeros((1000, 3), np.float32))))) == 3000


async def test_answers_that_are_not_taken_are_limited(tmp_path: Path) -> None:
    """Where a message just fits, its answer takes more than answers may."""
    rows = np.zeros((10_000, 3), np.float32)
    async with running(
        servable(onnx_models.identity(), tmp_path), limits=GrpcLimits(max_buffered_bytes=2 * rows.nbytes - 1)
    ) as state:
        edge = state.server._edge
        error = await refused(state.client.infer(one(rows)))
        assert error.code() is StatusCode.UNAVAILABLE
        assert "clients have not taken" in told(error)
        assert len(floats(await state.client.infer(one(rows[:8000])))) == 24_000
        await until(lambda: edge.owed == 0)


async def test_calls_at_once_are_limited(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served, limits=GrpcLimits(max_calls=2)) as state:
        calls = [state.client.infer(row(i, 2, 3)) for i in range(2)]
        await until(lambda: served.in_flight == 2)
        error = await refused(state.client.infer(row(1, 2, 3)))
        assert (error.code(), "grpc-retry-pushback-ms" in dict(error.trailing_metadata())) == (
            StatusCode.RESOURCE_EXHAUSTED,
            True,
        )
        session.gate.set()
        await asyncio.gather(*calls)
        assert floats(await state.client.infer(row(4, 5, 6))) == [4, 5, 6]


async def test_a_message_that_does_not_come(tmp_path: Path) -> None:
    async with running(servable(onnx_models.identity(), tmp_path), limits=GrpcLimits(message_timeout=0.2)) as state:
        silent = asyncio.Event()

        async def never() -> AsyncIterator[bytes]:
            await silent.wait()
            yield b""

        method: Any = state.client.channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        call = method(never())
        error = await refused(call)
        silent.set()
        assert (error.code(), told(error)[:28]) == (StatusCode.DEADLINE_EXCEEDED, "the message did not arrive w")
        assert floats(await state.client.infer(row(1, 2, 3))) == [1, 2, 3]


# ---------------------------------------------------------------------------------------------- time
async def test_a_client_that_gives_up_frees_its_place(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served) as state:
        first = state.client.infer(row(1, 2, 3))
        await until(lambda: session.runs)
        second = state.client.infer(row(4, 5, 6))
        await until(lambda: served.in_flight == 2)
        second.cancel()
        await until(lambda: served.in_flight == 1)
        session.gate.set()
        assert floats(await first) == [1, 2, 3]
        await until(lambda: state.metrics.grpc_responses == {"OK": 1, "CANCELLED": 1})
        assert session.runs == [1]  # nobody ran what nobody waits for


async def test_the_clients_own_time_counts(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served) as state:
        first = state.client.infer(row(1, 2, 3))
        await until(lambda: session.runs)
        error = await refused(state.client.infer(row(4, 5, 6), timeout=0.3))
        assert error.code() is StatusCode.DEADLINE_EXCEEDED
        await until(lambda: served.in_flight == 1)
        session.gate.set()
        await first
        assert session.runs == [1]


async def test_the_time_that_the_request_itself_names_counts(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path, planned(instances=1))
    async with running(served) as state:
        request = row(1, 2, 3)
        request.parameters["timeout"].int64_param = 200_000
        error = await refused(state.client.infer(request, timeout=20))
        assert (error.code(), "within the request's time" in told(error)) == (StatusCode.DEADLINE_EXCEEDED, True)
        session.gate.set()


async def test_the_models_time_counts(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path, planned(instances=1, limits=Limits(request_timeout=0.2)))
    async with running(served) as state:
        error = await refused(state.client.infer(row(1, 2, 3), timeout=20))
        assert (error.code(), "within the request's time" in told(error)) == (StatusCode.DEADLINE_EXCEEDED, True)
        session.gate.set()
