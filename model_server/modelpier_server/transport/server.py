"""A port: listens, keeps the connections, hands requests to their handlers, and ends without losing any.

`serve` is called once for the inference port, once for the admin port, once for the port of probes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from modelpier_server.errors import InferenceFailed, QueueFull, ServerError, Unavailable
from modelpier_server.protocol import compress
from modelpier_server.protocol.http import Response
from modelpier_server.protocol.inflate import Inflation
from modelpier_server.records import Recorder, current, path_of
from modelpier_server.telemetry import Metrics
from modelpier_server.transport import wire
from modelpier_server.transport.connection import Connection, Phase
from modelpier_server.transport.exchange import Answer, Exchange
from modelpier_server.transport.limits import HttpLimits
from modelpier_server.transport.router import Handler, Router
from modelpier_server.transport.secure import BACKLOG, SecureListener

if TYPE_CHECKING:  # imported where there are any: a laptop does not wait for them
    from modelpier_server.transport.security.keys import Keys
    from modelpier_server.transport.security.tls import Tls

SWEEP_INTERVAL = 0.5
"""Seconds between looks for connections that take too long; also the resolution of all of a connection's times."""
QUIET = 2.0
"""Seconds without any request after which, at the end, connections that are still open count as abandoned."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class App:
    """What a port serves."""

    router: Router
    metrics: Metrics | None = None
    recorder: Recorder | None = None
    """Of traces and of the access log; None: of neither."""
    tls: Tls | None = None
    """None: in plain."""
    keys: Keys | None = None
    """None: nobody needs one."""


class Server:
    """One listening port. Everything belongs to the event loop's thread."""

    def __init__(self, app: App, limits: HttpLimits) -> None:
        self.app = app
        self.limits = limits
        self.closing = False
        self.buffered = 0
        """Bytes of bodies."""
        self.owed = 0
        """Bytes of answers that clients have not taken."""
        self.recorder = app.recorder
        self._keys = app.keys
        self.clock: Callable[[], float] = time.monotonic
        self.now = self.clock()
        self.connections: set[Connection] = set()
        self.hosts: set[bytes | None] = set()
        """Values of the header Host that are of the right form."""
        self._secure = SecureListener(self, app.tls) if app.tls is not None else None
        self._listener: asyncio.Server | SecureListener | None = None
        self.port = 0
        """The one that the kernel gave when 0 was asked for."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._tick()

    async def listen(self, host: str, port: int) -> None:
        if self._secure is not None:
            await self._secure.open(host, port)
            self._listener = self._secure
        else:
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(lambda: Connection(self), host, port, backlog=BACKLOG)
        self.port = int(self._listener.sockets[0].getsockname()[1])
        self._sweep()

    @property
    def unanswered(self) -> int:
        """Requests taken and not answered."""
        return sum(connection.unanswered for connection in self.connections)

    # ------------------------------------------------------------------------------------------ the end
    def begin_close(self) -> None:
        """From now on every answer says `Connection: close`; new connections are still taken."""
        self.closing = True

    async def stop(self, timeout: float) -> bool:  # noqa: ASYNC109 - ends in time instead of being cancelled
        """Listens no longer, answers what has come, closes. Whether all was answered within `timeout` seconds.

        Who holds an idle connection has not been told to go, and its next request may be on its way. So none is closed
        before it has answered once more, until no request has come on any of them for QUIET seconds: the last ones
        are used as seldom as that, after the whole time of accepting without any use.
        """
        self.begin_close()
        if self._listener is not None:
            self._listener.close()
        start = active = self.clock()
        held = self._open
        while self._open and self.now < start + timeout:
            await asyncio.sleep(0.05)
            self._tick()
            if self._in_use() or self._open != held:  # a quick request shows in its connection's end alone
                active, held = self.now, self._open
            elif self.now - active > QUIET:
                break
        return await self._close_all()

    def _in_use(self) -> bool:
        return any(connection.phase is not Phase.IDLE for connection in self.connections)

    async def _close_all(self) -> bool:
        """Whether nothing was owed."""
        lost = self.unanswered
        if self._secure is not None:
            self._secure.abort()
        for connection in list(self.connections):
            if connection.phase is Phase.IDLE:
                connection.close_idle()
            else:
                connection.abort()
        await asyncio.sleep(0)  # sockets are closed by callbacks
        if self._sweeper is not None:
            self._sweeper.cancel()
        return not lost

    # ------------------------------------------------------------------------------------------ connections
    @property
    def _open(self) -> int:
        return len(self.connections) + (self._secure.handshakes if self._secure is not None else 0)

    def room_for_handshake(self) -> bool:
        return self._open < 2 * self.limits.max_connections

    def failed_handshake(self, error: OSError) -> None:
        """Anybody can make one fail: no line in the log for each."""
        log.debug("a client could not be agreed with", extra={"error": str(error)})
        if self.app.metrics is not None:
            self.app.metrics.failed_handshakes += 1

    def admit(self, connection: Connection) -> bool:
        """Whether there is room; the connection is kept track of in any case."""
        self.connections.add(connection)
        self._count()
        if len(self.connections) > 2 * self.limits.max_connections:
            connection.abort()
        return len(self.connections) <= self.limits.max_connections

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._count()

    def _count(self) -> None:
        if self.app.metrics is not None:
            self.app.metrics.connections = len(self.connections)

    def _sweep(self) -> None:
        self._tick()
        for connection in list(self.connections):
            connection.check(self.now)
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_INTERVAL, self._sweep)

    def _tick(self) -> None:
        self.now = self.clock()
        self.date = wire.date_line()
        self.json_prefix = wire.json_prefix(self.date)
        self._refusal: tuple[QueueFull | None, bytes] = (None, b"")

    def refusal(self, error: QueueFull) -> bytes:
        """The whole answer, of which the last one is kept for as long as its date is right."""
        told, raw = self._refusal
        if told is not error:
            response = Response.of_error(error)
            raw = wire.head(response.status, self.date, response.headers, len(response.body), b"") + response.body
            self._refusal = (error, raw)
        return raw

    # ------------------------------------------------------------------------------------------ requests
    def body_limit(self, exchange: Exchange) -> int:
        """Bytes that the route takes, within what all bodies together may; answers the exchange where there is no such
        route or model.
        """
        if not self._route(exchange):
            return 0
        assert exchange.match is not None
        ask = exchange.match.route.body_limit
        try:
            limit = ask(exchange) if ask is not None else self.limits.max_body_bytes
            return min(limit, self.limits.max_buffered_bytes)
        except ServerError as error:
            exchange.connection.reject(exchange, error)
            return 0

    def dispatch(self, exchange: Exchange) -> None:
        """A request is complete."""
        if exchange.match is None and not self._route(exchange):
            return
        encoding = exchange.headers.get(b"content-encoding")
        if exchange.refusal is not None:
            exchange.refuse(exchange.refusal)
        elif encoding is not None and encoding.lower() != b"identity":
            self._spawn(exchange, self._inflate(exchange, encoding.decode("latin-1")))
        else:
            self._handle(exchange)

    def _route(self, exchange: Exchange) -> bool:
        """Finds the route, or answers why there is none for this client."""
        try:
            match = self.app.router.match(exchange.method, exchange.url)
            if self._keys is not None and match.route.scope is not None:
                self._keys.check_http(exchange.headers, match.route.scope)
            exchange.match = match
        except ServerError as error:
            if exchange.connection.receives(exchange):
                exchange.connection.stop_reading_body(exchange)
            exchange.fail(error)
        return exchange.match is not None

    def _handle(self, exchange: Exchange) -> None:
        assert exchange.match is not None
        route = exchange.match.route
        if route.direct is None:
            assert route.handler is not None
            self._spawn(exchange, self._run(exchange, route.handler))
            return
        try:
            route.direct(exchange)
        except ServerError as error:
            exchange.fail(error)
        except Exception:
            log.exception("a handler failed", extra={"path": exchange.match.path})
            exchange.fail(InferenceFailed("internal error; the server's log has it"))

    def later(self, exchange: Exchange, work: Coroutine[None, None, None]) -> None:
        """The rest of a direct handler."""
        self._spawn(exchange, self._finish(exchange, work))

    async def _finish(self, exchange: Exchange, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except ServerError as error:
            exchange.fail(error)
        except Exception:
            log.exception("a handler failed", extra={"url": exchange.url.decode("latin-1")[:200]})
            exchange.fail(InferenceFailed("internal error; the server's log has it"))

    async def _run(self, exchange: Exchange, handler: Handler) -> None:
        if exchange.record is not None:
            current.set(exchange.record)
        try:
            response = await handler(exchange.request())
        except ServerError as error:
            response = Response.of_error(error)
        except Exception:
            log.exception("a handler failed", extra={"url": exchange.url.decode("latin-1")[:200]})
            response = Response.of_error(InferenceFailed("internal error; the server's log has it"))
        exchange.send(response)

    async def _inflate(self, exchange: Exchange, encoding: str) -> None:
        """In a thread: zlib releases the GIL, and a small body may become a large one."""
        exchange.limit = exchange.limit or self.body_limit(exchange)
        if exchange.refusal is not None:
            exchange.refuse(exchange.refusal)
        if exchange.answered:
            return
        try:
            inflation = Inflation(exchange.body, encoding, exchange.limit)
            packed, done = exchange.held, False
            while not done:
                done = await asyncio.to_thread(inflation.step)
                self.hold(exchange, packed + len(inflation.plain))
        except ServerError as error:
            exchange.fail(error)
            return
        exchange.body = inflation.plain
        self.hold(exchange, len(inflation.plain))
        exchange.work = None
        self._handle(exchange)

    def compress(self, exchange: Exchange, answer: Answer) -> bool:
        """Whether the client wants it smaller; then it is answered here, at once or soon."""
        size = sum(len(part) for part in answer.parts)
        if size < compress.LEAST or exchange.method == b"HEAD":
            return False
        coding = compress.coding_of(exchange.headers.pop(b"accept-encoding").decode("latin-1"))  # asked once
        if coding is None:
            return False
        if size > compress.LARGE:
            self._spawn(exchange, self._compress(exchange, answer, coding))
        else:
            _send(exchange, answer, compress.compress(answer.parts, coding), coding)
        return True

    async def _compress(self, exchange: Exchange, answer: Answer, coding: str) -> None:
        """In a thread: zlib releases the GIL."""
        packed = await asyncio.to_thread(compress.compress, answer.parts, coding)
        _send(exchange, answer, packed, coding)

    def hold(self, exchange: Exchange, size: int) -> None:
        """Notes that the exchange keeps `size` bytes of body in memory. Raises Unavailable beyond what all may."""
        self.buffered += size - exchange.held
        exchange.held = size
        if self.buffered > self.limits.max_buffered_bytes:
            raise Unavailable("the bodies of all requests together take too much memory; try again")

    def owe(self, connection: Connection, size: int) -> None:
        """Notes that `size` bytes of answers wait for the connection's client."""
        self.owed += size - connection.owed
        connection.owed = size
        while self.owed > self.limits.max_owed_bytes:
            slow = max(self.connections, key=lambda other: other.owed)
            assert slow.owed
            log.warning("a client is cut off that does not take its answers", extra={"bytes": slow.owed})
            self.owed -= slow.owed
            slow.owed = 0
            slow.abort()

    def _spawn(self, exchange: Exchange, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        exchange.work = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answered(self, exchange: Exchange) -> None:
        """An answer is on its way to the client."""
        self.buffered -= exchange.held
        exchange.held = 0
        metrics = self.app.metrics
        if metrics is not None:
            metrics.http_responses[exchange.status] = metrics.http_responses.get(exchange.status, 0) + 1
        if exchange.record is not None:
            self.end(exchange)

    # ------------------------------------------------------------------------------------------ records
    def begin(self, exchange: Exchange) -> None:
        """Has noted what traces and the access log want of it, where it is among those that they look at."""
        assert self.recorder is not None
        parent, state = (exchange.headers.get(name) for name in (b"traceparent", b"tracestate"))
        exchange.record = self.recorder.begin(
            None if parent is None else parent.decode("latin-1"),
            None if state is None else state.decode("latin-1"),
            worth=exchange.method == b"POST",  # probes and scrapes are of no interest
        )
        if exchange.record is not None:
            exchange.record.client = exchange.connection.peer  # it is gone with the connection

    def end(self, exchange: Exchange) -> None:
        """It has been answered, or its client has left."""
        record, match = exchange.record, exchange.match
        assert self.recorder is not None
        assert record is not None
        exchange.record = None
        method, route = exchange.method.decode("latin-1"), "" if match is None else match.route.pattern
        if not record.model and match is not None:  # of what found nobody to answer it
            record.model = match.params.get("model", "")
        values: dict[str, str | int] = {
            "http.request.method": method,
            "http.response.status_code": exchange.status,
            "url.path": path_of(exchange.url),
        }
        if route:
            values["http.route"] = route
        fault = exchange.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        self.recorder.end(record, f"{method} {route}".strip(), values, lambda: self._line(exchange), failed=fault)

    def _line(self, exchange: Exchange) -> dict[str, object]:
        """What the access log says of it beside what it says of every request."""
        fields: dict[str, object] = {
            "method": exchange.method.decode("latin-1"),
            "path": path_of(exchange.url),
            "status": exchange.status,
            "request_bytes": len(exchange.body),
            "response_bytes": sum(len(part) for part in exchange.ready or ()),
        }
        if self._keys is not None:
            fields["key"] = self._keys.caller(exchange.headers)
        return fields


def _send(exchange: Exchange, answer: Answer, packed: bytes | None, coding: str) -> None:
    """`packed` None: it did not get smaller."""
    if packed is None:
        exchange.connection.answer(exchange, answer.status, answer.headers, answer.parts)
    else:
        headers = {**answer.headers, "content-encoding": coding, "vary": "accept-encoding"}
        exchange.connection.answer(exchange, answer.status, headers, (packed,))


async def serve(host: str, port: int, app: App, limits: HttpLimits | None = None) -> Server:
    """Listens on `host`:`port` (0: any free one). Raises OSError where that cannot be had."""
    server = Server(app, limits or HttpLimits())
    await server.listen(host, port)
    return server
