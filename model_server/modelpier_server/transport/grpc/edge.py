"""What all calls have in common: admission, reading, errors to codes, figures, the access log.

Handlers take a message's bytes and give an answer's; they raise ServerError. A unary call is served as a stream of one
request, because only then may the server refuse it before its message has been read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import unquote

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
from modelpier_server.records import Record, Recorder, current
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

SMALL = 1 << 16
"""Bytes of an answer that is not counted."""
SWEEP_INTERVAL = 0.5
"""Seconds between looks for messages that take too long."""

log = logging.getLogger(__name__)


class Edge:
    """One per port. Everything belongs to the event loop's thread."""

    def __init__(
        self, limits: GrpcLimits, metrics: Metrics, recorder: Recorder | None = None, keys: Keys | None = None
    ) -> None:
        """`keys` None: nobody needs one."""
        self.limits = limits
        self.calls = 0
        """Calls and streams that have no status yet."""
        self.called = 0.0
        """When the last one came, by the loop's clock."""
        self.buffered = 0
        """Bytes of messages."""
        self.owed = 0
        """Bytes of answers of more than SMALL that clients have not taken."""
        self.closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once streams that nobody uses are to end."""
        self._loop = asyncio.get_running_loop()
        self._reading: dict[asyncio.Task[Any], float] = {}
        """Calls whose message has not come yet, and since when."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._metrics = metrics
        self._recorder = recorder
        self._keys = keys

    def unary(self, name: str, handler: Unary, scope: Scope | None = Scope.INFER) -> grpc.RpcMethodHandler[Any, Any]:
        """`name`: the full one, as in `package.Service/Method`. `scope` None: nobody needs a key."""

        async def run(context: Context) -> bytes:
            raw = await self.read(context)
            if raw is None:
                raise InvalidRequest("request: the call carries no message")
            held = self.hold(len(raw))
            try:
                answer = await handler(raw, context)
            finally:
                self.buffered -= held
            if len(answer) > SMALL:
                self._owe(len(answer), context)
            if self._recorder is not None and (record := current.get()) is not None:
                record.moved(len(raw), len(answer))
            return answer

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

    def _owe(self, size: int, context: Context) -> None:
        """Counts an answer until its client has taken it: gRPC keeps it for as long. Raises Unavailable."""
        if self.owed + size > self.limits.max_owed_bytes:
            raise Unavailable("answers that clients have not taken yet take too much memory; try again")
        self.owed += size

        def taken(_: Context) -> None:
            self.owed -= size

        context.add_done_callback(taken)  # type: ignore[arg-type] # the stub knows no functions

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
        self.called = self._loop.time()
        error: ServerError
        self.calls += 1
        record = self._begin(name, context) if self._recorder is not None else None
        try:
            self._admit()
            if self._keys is not None and scope is not None:
                self._keys.check_metadata(context.invocation_metadata(), scope)
            answer = await handler(context)
        except ServerError as failure:
            error = failure
        except asyncio.CancelledError:
            self._end(name, StatusCode.CANCELLED, record)
            raise
        except Exception:
            log.exception("a handler failed", extra={"method": name})
            error = InferenceFailed("internal error; the server's log has it")
        else:
            self._end(name, StatusCode.OK, record)
            return answer
        self._end(name, code_of(error), record)
        return await abort(context, error)

    def _admit(self) -> None:
        if self.calls > self.limits.max_calls:
            raise QueueFull(f"{self.limits.max_calls} calls are under way already; try again later")

    def _begin(self, name: str, context: Context) -> Record | None:
        assert self._recorder is not None
        sent = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        worth = name.endswith(("/ModelInfer", "/ModelStreamInfer"))
        record = self._recorder.begin(sent.get("traceparent"), sent.get("tracestate"), worth=worth)
        if record is not None:
            record.client = _address(context.peer())
            current.set(record)
        return record

    def _end(self, name: str, code: StatusCode, record: Record | None) -> None:
        self.calls -= 1
        self._metrics.grpc_responses[code.name] = self._metrics.grpc_responses.get(code.name, 0) + 1
        if record is not None and self._recorder is not None:
            service, _, method = name.partition("/")
            status = int(code.value[0])
            values: dict[str, str | int] = {
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "rpc.grpc.status_code": status,
            }

            def line() -> dict[str, object]:
                sizes = {"request_bytes": record.received, "response_bytes": record.sent}
                return {"method": method, "code": code.name, **sizes}

            self._recorder.end(record, name, values, line, failed=code in FAULTS)


FAULTS = frozenset({StatusCode.INTERNAL, StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.UNKNOWN})
"""The server's own, as OpenTelemetry's conventions have it."""


def _address(peer: str) -> str:
    """`ipv4:10.0.0.1:5000` or `ipv6:%5B::1%5D:5000`, as gRPC writes it, without family and port."""
    return unquote(peer.partition(":")[2].rpartition(":")[0]).strip("[]")


def message_of(read: Any) -> bytes | None:
    """None for the end of a stream, as gRPC marks it."""
    return None if read is EOF else read
