"""ModelInfer, the hot path, and what ModelStreamInfer shares with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from modelpier_server.errors import PayloadTooLarge, ServerError
from modelpier_server.protocol.grpc.decode import decode
from modelpier_server.protocol.grpc.encode import encode
from modelpier_server.protocol.grpc.generated.inference_pb2 import ModelInferRequest, ModelInferResponse
from modelpier_server.protocol.grpc.messages import dump, parse
from modelpier_server.protocol.infer_request import InferRequest
from modelpier_server.records import current
from modelpier_server.scheduler.servable import Servable
from modelpier_server.scheduler.work import Arrays, Work
from modelpier_server.transport.catalog import Catalog
from modelpier_server.transport.grpc.edge import Context

Finish = Callable[[ModelInferResponse], bytes]


class InferCall(Work):
    """`future` gets the answer's bytes, made where the scheduler counts the time that it takes."""

    __slots__ = ("_finish", "_request", "_servable", "future")

    def __init__(self, request: InferRequest, servable: Servable, deadline: float, finish: Finish) -> None:
        super().__init__(request.inputs, request.outputs, deadline, request.priority)
        self._request = request
        self._servable = servable
        self._finish = finish
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.future.add_done_callback(self._settled)

    def succeed(self, arrays: Arrays) -> bool:
        servable = self._servable
        try:
            answer = encode(servable.name, servable.version, self._request, servable.signature, arrays)
        except ServerError as error:
            self.fail(error)
            return False
        if not self.future.done():
            self.future.set_result(self._finish(answer))
        return True

    def fail(self, error: ServerError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def _settled(self, future: asyncio.Future[bytes]) -> None:
        if future.cancelled():
            self.cancel()


class Infer:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def __call__(self, raw: bytes, context: Context) -> bytes:
        """A call that its client gives up is cancelled here, and frees its place in the queue."""
        message = parse(ModelInferRequest, raw)
        return await self.submit(message, len(raw), context.time_remaining(), dump).future

    def submit(self, message: ModelInferRequest, size: int, left: float | None, finish: Finish) -> InferCall:
        """`left`: seconds that the client itself waits. Raises ServerError for what is wrong at once."""
        servable = self._catalog.find(message.model_name, message.model_version or None)
        limits = servable.limits
        record = current.get()
        if record is not None:
            record.served(servable.name, servable.version)
        if size > limits.max_body_bytes:
            raise PayloadTooLarge(f"message: more than the {limits.max_body_bytes} bytes that this model takes")
        servable.check_room()
        try:
            request = decode(message, servable.signature)
        except ServerError:
            servable.reject()
            raise
        timeout = min(seconds for seconds in (left, request.timeout, limits.request_timeout) if seconds is not None)
        call = InferCall(request, servable, time.monotonic() + timeout, finish)
        call.record = record
        servable.enqueue(call)
        return call
