"""Server reflection: what `grpcurl` and its like ask before they can call anything.

The versions v1 and v1alpha differ in the name of their package alone; grpcio-reflection has the second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from modelpier_server.protocol.grpc.pool import POOL

ALPHA = "grpc.reflection.v1alpha"
STABLE = "grpc.reflection.v1"
SERVICES = (f"{STABLE}.ServerReflection", f"{ALPHA}.ServerReflection")


def handlers(services: frozenset[str], closing: asyncio.Future[None]) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Methods by their full name. Streams end when `closing` is done."""
    _describe()
    servicer = ReflectionServicer([*services, *SERVICES], POOL)

    async def info(requests: AsyncIterable[Any], context: Any) -> AsyncIterator[Any]:
        async for answer in servicer.ServerReflectionInfo(_until(requests, closing), context):
            yield answer

    handler = grpc.stream_stream_rpc_method_handler(
        info,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return {f"/{service}/ServerReflectionInfo": handler for service in SERVICES}


def _describe() -> None:
    """Reflection tells of itself, too."""
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    POOL.AddSerializedFile(file.SerializeToString())
    file.name, file.package = "grpc/reflection/v1/reflection.proto", STABLE
    for message in file.message_type:
        for field in filter(lambda field: field.type_name, message.field):
            field.type_name = field.type_name.replace(ALPHA, STABLE)
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(ALPHA, STABLE)
        method.output_type = method.output_type.replace(ALPHA, STABLE)
    POOL.AddSerializedFile(file.SerializeToString())


async def _until(requests: AsyncIterable[Any], closing: asyncio.Future[None]) -> AsyncIterator[Any]:
    iterator = aiter(requests)
    while not closing.done():
        following = asyncio.ensure_future(anext(iterator, None))
        try:
            await asyncio.wait({following, closing}, return_when=asyncio.FIRST_COMPLETED)
            request = following.result() if following.done() else None
        finally:
            following.cancel()
        if request is None:
            return
        yield request
