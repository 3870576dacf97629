"""What all calls have in common: admission, reading, errors to codes, figures, the access log.

Handlers take a message's bytes and give an answer's; they raise ServerError. A unary call is served as a stream of one
request, because only then may the server refuse it before its message has been read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import grpc
from grpc import StatusCode
from grpc.aio import EOF, ServicerContext

from modelpier_server.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    QueueFull,
    ServerError,
    Unavailable,
)
from modelpier_server.telemetry import Metrics
from modelpier_server.transport.grpc.limits import GrpcLimits
from modelpier_server.transport.grpc.status import abort, code_of
from modelpier_server.transport.security.scopes import Scope

if TYPE_CHECKING:  # imported where there are any
    from modelpier_server.transport.security.keys import Keys

T = TypeVar("T")
Context: TypeAlias = "ServicerContext[bytes, bytes]"
Unary = Callable[[bytes, Context], Awaitable[bytes]]
Stream = Callable[[Context], Awaitable[None]]

SWEEP_INTERVAL = 0.5
"""Seconds between looks for messages that take too long."""

log = logging.getLogger(__name__)
access = logging.getLogger("modelpier_server.access")


class Edge:
    """One per port. Everything belongs to the event loop's thread."""

    def __init__(
        self, limits: GrpcLimits, metrics: Metrics, *, access_log: bool = False, keys: Keys | None = None
    ) -> None:
        """`keys` None: nobody needs one."""
        self.limits = limits
        self.calls = 0
        """Calls and streams that have no status yet."""
        self.called = 0.0
        """When the last one came, by the loop's clock."""
        self.buffered = 0
        self.closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once streams that nobody uses are to end."""
        self._loop = asyncio.get_running_loop()
        self._reading: dict[asyncio.Task[Any], float] = {}
        """Calls whose message has not come yet, and since when."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._metrics = metrics
        self._access_log = access if access_log else None
        self._keys = keys

    def unary(self, name: str, handler: Unary, scope: Scope | None = Scope.INFER) -> grpc.RpcMethodHandler[Any, Any]:
        """`scope` None: nobody needs a key."""

        async def run(context: Context) -> bytes:
            raw = await self.read(context)
            if raw is None:
                raise InvalidRequest("request: the call carries no message")
            held = self.hold(len(raw))
            try:
                return await handler(raw, context)
            finally:
                self.buffered -= held

        async def call(_: Any, context: Context) -> bytes:
            return await self._guard(name, run, context, scope)

        return grpc.stream_unary_rpc_method_handler(call)

    def stream(self, name: str, handler: Stream, scope: Scope | None = Scope.INFER) -> grpc.RpcMethodHandler[Any, Any]:
        """`handler` reads and writes by itself."""

        async def call(_: Any, context: Context) -> None:
            await self._guard(name, handler, context, scope)

        return grpc.stream_stream_rpc_method_handler(call)

    def hold(self, size: int) -> int:
        """`size`, which its caller gives back to `buffered`. Raises Unavailable beyond what all calls may."""
        if self.buffered + size > self.limits.max_buffered_bytes:
            raise Unavailable("the messages of all calls together take too much memory; try again")
        self.buffered += size
        return size

    async def read(self, context: Context) -> bytes | None:
        """The next message, which must come in time; None at the end. Raises DeadlineExceeded."""
        task = asyncio.current_task()
        assert task is not None
        self._reading[task] = self._loop.time()
        if len(self._reading) == 1 and self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_INTERVAL, self._sweep)
        try:
            return message_of(await context.read())
        except asyncio.CancelledError:
            if task in self._reading:  # by the client
                raise
            task.uncancel()
            text = f"the message did not arrive within {self.limits.message_timeout:.0f} s"
            raise DeadlineExceeded(text) from None
        finally:
            self._reading.pop(task, None)

    def _sweep(self) -> None:
        """Ends reads that take too long: a timer for all of them, because one per call costs a tenth of the call."""
        late = self._loop.time() - self.limits.message_timeout
        for task in [task for task, since in self._reading.items() if since <= late]:
            del self._reading[task]
            task.cancel()
        self._sweeper = self._loop.call_later(SWEEP_INTERVAL, self._sweep) if self._reading else None

    async def _guard(
        self, name: str, handler: Callable[[Context], Awaitable[T]], context: Context, scope: Scope | None
    ) -> T:
        """The edge: whatever goes wrong, the caller gets a status."""
        self.called = started = self._loop.time()
        error: ServerError
        self.calls += 1
        try:
            self._admit()
            if self._keys is not None and scope is not None:
                self._keys.check_metadata(context.invocation_metadata(), scope)
            answer = await handler(context)
        except ServerError as failure:
            error = failure
        except asyncio.CancelledError:
            self._end(name, StatusCode.CANCELLED, started)
            raise
        except Exception:
            log.exception("a handler failed", extra={"method": name})
            error = InferenceFailed("internal error; the server's log has it")
        else:
            self._end(name, StatusCode.OK, started)
            return answer
        self._end(name, code_of(error), started)
        return await abort(context, error)

    def _admit(self) -> None:
        if self.calls > self.limits.max_calls:
            raise QueueFull(f"{self.limits.max_calls} calls are under way already; try again later")

    def _end(self, name: str, code: StatusCode, started: float) -> None:
        self.calls -= 1
        self._metrics.grpc_responses[code.name] = self._metrics.grpc_responses.get(code.name, 0) + 1
        if self._access_log is not None:
            fields = {"method": name, "code": code.name, "seconds": round(self._loop.time() - started, 6)}
            self._access_log.info("call", extra=fields)


def message_of(read: Any) -> bytes | None:
    """None for the end of a stream, as gRPC marks it."""
    return None if read is EOF else read
