"""A gRPC server in the test's own event loop, and a client of plain grpcio with this server's own messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from modelpier_server.protocol import binary
from modelpier_server.protocol.grpc.generated import health_pb2
from modelpier_server.protocol.grpc.generated import inference_pb2 as pb
from modelpier_server.scheduler import Servable
from modelpier_server.telemetry import Metrics
from modelpier_server.transport import Extras
from modelpier_server.transport.grpc import GrpcLimits, GrpcServer, serve
from support.serving import Shelf

SERVICE = "/inference.GRPCInferenceService/"


def message(*tensors: Any, model: str = "m", outputs: Sequence[str] = (), **fields: Any) -> pb.ModelInferRequest:
    """`tensors`: (name, datatype, shape, raw bytes)."""
    request = pb.ModelInferRequest(model_name=model, **fields)
    for name, datatype, shape, raw in tensors:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw)
    for name in outputs:
        request.outputs.add(name=name)
    return request


def one(array: np.ndarray, datatype: str = "FP32", **fields: Any) -> pb.ModelInferRequest:
    """For a model with the one input `x`."""
    return message(("x", datatype, array.shape, bytes(binary.bytes_of(array))), **fields)


def row(*values: float, **fields: Any) -> pb.ModelInferRequest:
    return one(np.array([values], np.float32), **fields)


def floats(answer: pb.ModelInferResponse, index: int = 0) -> list[float]:
    return list(np.frombuffer(answer.raw_output_contents[index], np.float32))


async def refused(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """How the call failed; fails where it did not."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call was answered")


class Client:
    """Calls by name; raises grpc.aio.AioRpcError."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    def call(self, name: str, request: Any, kind: Any = None, **options: Any) -> Any:
        """Bytes as they are, where no kind of answer is named."""
        path = name if name.startswith("/") else SERVICE + name
        parse = kind.FromString if kind is not None else None
        dump = None if isinstance(request, bytes) else type(request).SerializeToString
        return self.channel.unary_unary(path, request_serializer=dump, response_deserializer=parse)(request, **options)

    def infer(self, request: pb.ModelInferRequest | bytes, **options: Any) -> Any:
        return self.call("ModelInfer", request, pb.ModelInferResponse, **options)

    def stream(self, **options: Any) -> Any:
        return self.channel.stream_stream(
            SERVICE + "ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )(**options)

    async def check(self, service: str = "") -> str:
        kind = health_pb2.HealthCheckResponse
        answer = await self.call("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service=service), kind)
        return str(kind.ServingStatus.Name(answer.status))

    def watch(self, service: str = "") -> Any:
        return self.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest(service=service))


@dataclass
class Running:
    server: GrpcServer
    shelf: Shelf
    metrics: Metrics
    client: Client
    stopped: bool = False

    async def stop(self, seconds: float = 5.0, *, patient: bool = False) -> bool:
        self.stopped = True
        return await self.server.stop(seconds, patient=patient)


@asynccontextmanager
async def running(
    *servables: Servable, limits: GrpcLimits | None = None, extras: Extras | None = None
) -> AsyncIterator[Running]:
    """A listening server of these models; all of it is gone at the end."""
    metrics = Metrics()
    shelf = Shelf({served.name: served for served in servables})
    server = await serve("127.0.0.1", 0, shelf, metrics, limits, extras=extras)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        state = Running(server, shelf, metrics, Client(channel))
        try:
            yield state
        finally:
            if not state.stopped:
                await state.stop(0.2)
            for served in shelf.servables.values():
                served.close()


def told(error: grpc.aio.AioRpcError) -> str:
    """What a failed call says."""
    return error.details() or ""
