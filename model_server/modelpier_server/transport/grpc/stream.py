"""ModelStreamInfer: requests as they come, answers in the order of the requests, errors beside answers.

As in Triton an error of one request does not end the stream, unless the caller asked for that by `triton_grpc_error`.
Source: Triton's `grpc_service.proto` and `inference_protocols.md`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from modelpier_server.errors import DeadlineExceeded, ServerError, Unavailable
from modelpier_server.protocol.grpc.generated.inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from modelpier_server.protocol.grpc.messages import dump, parse
from modelpier_server.records import current
from modelpier_server.transport.grpc.edge import Context, Edge, message_of
from modelpier_server.transport.grpc.infer import Infer

QUIET = 2.0
"""Seconds without a request after which a stream ends once the server goes down."""
STRICT = "triton_grpc_error"
"""Metadata: `true` for errors that end the stream with their status."""
FINAL = "triton_final_response"
"""Parameter of each answer: there is exactly one per request."""


@dataclass(slots=True)
class Pending:
    """A request that was read. Without a future it is wrong, and `error` says why."""

    id: str
    size: int
    future: asyncio.Future[bytes] | None = None
    error: ServerError | None = None


class StreamInfer:
    def __init__(self, infer: Infer, edge: Edge) -> None:
        self._infer = infer
        self._edge = edge

    async def __call__(self, context: Context) -> None:
        """Raises ServerError for what ends the stream."""
        session = Session(self._infer, self._edge, context)
        reader = asyncio.get_running_loop().create_task(session.read())
        try:
            await session.write()
            await reader
        finally:
            reader.cancel()
            session.abandon()


class Session:
    """One stream: `read` and `write` run side by side."""

    def __init__(self, infer: Infer, edge: Edge, context: Context) -> None:
        self._infer = infer
        self._edge = edge
        self._context = context
        self._room = asyncio.Semaphore(edge.limits.max_in_flight)
        self._pending: asyncio.Queue[Pending | None] = asyncio.Queue()
        self._writing: Pending | None = None
        self._strict = any(key == STRICT and value == "true" for key, value in context.invocation_metadata() or ())

    async def read(self) -> None:
        try:
            while True:
                await self._room.acquire()
                raw = await self._next()
                if raw is None:
                    return
                self._pending.put_nowait(self._take(raw))
        finally:
            self._pending.put_nowait(None)

    async def write(self) -> None:
        while (pending := await self._pending.get()) is not None:
            self._writing = pending
            answer = await self._answer(pending)
            try:
                async with asyncio.timeout(self._edge.limits.write_timeout):
                    await self._context.write(answer)
            except TimeoutError:
                raise DeadlineExceeded("stream: its answers are not read") from None
            if (record := current.get()) is not None:
                record.serialised()
                record.moved(pending.size, len(answer))
            self._writing = None
            self._edge.buffered -= pending.size
            self._room.release()

    def abandon(self) -> None:
        """The stream is over: nobody waits for what is still under way."""
        left = [self._writing]
        while not self._pending.empty():
            left.append(self._pending.get_nowait())
        for pending in filter(None, left):
            self._edge.buffered -= pending.size
            if pending.future is not None:
                pending.future.cancel()

    async def _next(self) -> bytes | None:
        """None at the end. Raises Unavailable where the server goes down and the stream is not in use."""
        read: asyncio.Future[Any] = asyncio.ensure_future(self._context.read())
        try:
            if not self._edge.closing.done():
                await asyncio.wait({read, self._edge.closing}, return_when=asyncio.FIRST_COMPLETED)
            if not read.done():
                await asyncio.wait({read}, timeout=QUIET)
            if not read.done():
                raise Unavailable("this server goes down; open another stream")
            return message_of(read.result())
        finally:
            read.cancel()

    def _take(self, raw: bytes) -> Pending:
        pending = Pending("", 0)
        try:
            pending.size = self._edge.hold(len(raw))
            message = parse(ModelInferRequest, raw)
            pending.id = message.id
            left = self._context.time_remaining()
            pending.future = self._infer.submit(message, len(raw), left, _bytes_of).future
        except ServerError as error:
            pending.error = error
        return pending

    async def _answer(self, pending: Pending) -> bytes:
        error = pending.error
        if pending.future is not None:
            try:
                return await pending.future
            except ServerError as failure:
                error = failure
        assert error is not None
        if self._strict:
            raise error
        answer = ModelInferResponse(id=pending.id)
        return dump(ModelStreamInferResponse(error_message=str(error), infer_response=answer))


def _bytes_of(answer: ModelInferResponse) -> bytes:
    answer.parameters[FINAL].bool_param = True
    return dump(ModelStreamInferResponse(infer_response=answer))
