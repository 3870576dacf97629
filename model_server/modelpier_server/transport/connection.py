"""One client's connection: bytes to requests by httptools (llhttp), answers back in order.

llhttp in its strict mode refuses what request smuggling lives from: both Content-Length and Transfer-Encoding, either
of them twice, folded headers, bare line feeds, blanks before a colon. Sources: RFC 9112, RFC 9110 section 10.1.1
(Expect).
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, cast

import httptools

from modelpier_server.errors import Cancelled, InvalidRequest, PayloadTooLarge, QueueFull, ServerError, Unavailable
from modelpier_server.protocol import compress
from modelpier_server.protocol.http import Response
from modelpier_server.transport import wire
from modelpier_server.transport.exchange import Answer, Exchange

if TYPE_CHECKING:
    from modelpier_server.transport.server import Server

_UNCOUNTED = -1
"""Of `Connection._fed`: nobody knows how much of what was just read belongs to this request."""
_HOST = re.compile(rb"([A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Za-z:.]+\])(:[0-9]*)?")
"""RFC 3986, 3.2.2: host and port."""
SLICE = 4096
"""Bytes that are parsed at once where a packet has more: a request has 40 at least."""
SMALL_DIGITS = 4
"""A Content-Length of so many digits (below 10 kB) is read without asking for the route's limit first."""


CHUNK_OVERHEAD = 16
"""Bytes around each byte of a chunked body, at most: ones of a single byte have five."""
MOST_HOSTS = 64


class Phase(Enum):
    """What the connection waits for; each has its own timeout."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    BUSY = 3  # for the server itself
    LINGER = 4  # answered before the request was read; what still comes is thrown away


_HEAD, _BODY = Phase.HEAD, Phase.BODY  # looked up for each request


class Connection(asyncio.Protocol):
    """Callbacks in the order of asyncio and httptools; nothing here may raise."""

    __slots__ = (
        "_body", "_due", "_exchange", "_fed", "_head_bytes", "_headers", "_kept", "_muted", "_parser", "_queue",
        "_reading", "_rest", "_server", "_size", "_transport", "_url", "_waiting", "blocked", "owed", "phase", "since",
    )  # fmt: skip

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._queue: deque[Exchange] = deque()
        self._waiting: deque[Exchange] = deque()
        """Those at the end of the queue that no handler has seen yet: a packet may hold hundreds."""
        self._rest = memoryview(b"")
        """What has come and was not parsed yet, because the client has enough under way."""
        self._kept = 0
        """Bytes of it that count against the limit of all connections."""
        self._due = False
        """Whether `_go_on` will be called."""
        self._headers: dict[bytes, bytes] = {}
        self._url = b""
        self._exchange: Exchange | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._head_bytes = 0
        """Of the headers so far."""
        self._fed = 0
        """Bytes given to the parser for this request so far: one endless header never reaches `on_header`, what lies
        around chunks no callback at all. Counted from the packet that begins with it, or from the one after.
        """
        self._muted = False
        self._reading = True
        self.phase = Phase.IDLE
        self.since = server.now
        self.blocked: float | None = None
        """Since when the client does not read its answers, or not fast enough."""
        self.owed = 0
        """Bytes of answers that it has not taken, as far as they are many."""

    # ------------------------------------------------------------------------------------------ from asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._server.admit(self):
            self._enter(Phase.HEAD)
            self._refuse(503, "too many connections; try again later")

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._mute()
        self._keep_rest()
        self._server.owe(self, 0)
        self._server.forget(self)
        while self._queue:
            exchange = self._queue.popleft()
            self._server.buffered -= exchange.held
            if exchange.record is not None:
                exchange.status = Cancelled.status
                self._server.end(exchange)
            exchange.abort()

    def data_received(self, data: bytes) -> None:
        if len(data) <= SLICE and not self._rest:
            self._feed(data)
        elif not self._muted:
            self._rest = memoryview(bytes(self._rest) + data if self._rest else data)
            self._feed_rest()
        if len(self._queue) >= self._server.limits.max_pipelined:
            self._read(wanted=False)

    def _feed_rest(self) -> None:
        """Until the client has enough under way: then nothing more is read before something is answered."""
        while self._rest and len(self._queue) < self._server.limits.max_pipelined:
            size = self._slice()
            data, self._rest = self._rest[:size], self._rest[size:]
            self._feed(data)
        if self._rest or self._kept:
            self._keep_rest()

    def _slice(self) -> int:
        """Bytes that can be parsed before another look at the queue: all of a body whose length is known."""
        exchange = self._exchange
        if self.phase is not Phase.BODY or exchange is None or b"transfer-encoding" in exchange.headers:
            return SLICE
        return max(SLICE, int(exchange.headers.get(b"content-length", b"0")) - self._size)

    def _keep_rest(self) -> None:
        server = self._server
        server.buffered += len(self._rest) - self._kept
        self._kept = len(self._rest)
        if self._kept and server.buffered > server.limits.max_buffered_bytes:
            self._refuse(503, "what clients send takes too much memory; wait for answers before sending more")

    def _go_on(self) -> None:
        """Something was answered: what waits behind it has its turn, after others had theirs."""
        self._due = False
        queue, waiting, most = self._queue, self._waiting, self._server.limits.max_pipelined
        for _ in range(min(len(waiting), most - (len(queue) - len(waiting)))):
            if not waiting or self._transport is None or self._transport.is_closing():
                return
            self._server.dispatch(waiting.popleft())
        self._feed_rest()
        if not self._rest:
            self._read(wanted=self.blocked is None and len(queue) < most)

    def _feed(self, data: bytes | memoryview) -> None:
        if self._muted:
            return
        if self.phase is Phase.IDLE:
            self._enter(Phase.HEAD)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._mute()
        except httptools.HttpParserInvalidMethodError:
            self._refuse(501, "request line: unknown method")
        except httptools.HttpParserError as error:
            self._malformed(error)
        phase = self.phase
        if (phase is _HEAD or phase is _BODY) and not self._muted:
            self._fed = self._fed + len(data) if self._fed >= 0 else 0
            self._bound(self._fed)

    def _bound(self, fed: int) -> None:
        """The request is not complete, and has taken so many bytes."""
        most = self._server.limits.max_header_bytes
        if self.phase is Phase.HEAD and fed > most:
            self._refuse(431, f"headers: more than {most} bytes")
        elif fed - self._size > 2 * most + CHUNK_OVERHEAD * self._size:  # the head is among them
            self._refuse(400, "body: too much around its chunks; send larger ones, and fewer trailers")

    def eof_received(self) -> bool:
        """A client that closes its side is taken to be gone: nobody can tell the two apart, and work for nobody costs
        others.
        """
        return False

    def pause_writing(self) -> None:
        self.blocked = self._server.now
        self._read(wanted=False)
        self._owe()

    def resume_writing(self) -> None:
        self.blocked = None
        self._owe()
        self._soon()

    # ------------------------------------------------------------------------------------------ from httptools
    def on_message_begin(self) -> None:
        self._headers = {}
        self._url = b""
        self._exchange = None
        self._head_bytes = self._size = 0
        self._fed = 0 if self.phase is _HEAD else _UNCOUNTED  # the packet began with another request
        if not self._muted:
            self.phase = Phase.HEAD
            self.since = self._server.now

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._exchange is not None or self._muted:  # trailers mean nothing here
            return
        name = name.lower()
        self._head_bytes += len(name) + len(value) + 4
        if name in self._headers:
            if name in {b"host", b"inference-header-content-length", b"content-encoding"}:
                self._refuse(400, f"header {name.decode('latin-1')}: given twice")
            elif self._head_bytes > self._server.limits.max_header_bytes:  # each one more would copy all before it
                self._refuse(431, f"headers: more than {self._server.limits.max_header_bytes} bytes")
            value = self._headers[name] + b", " + value
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        if self._muted:
            return
        parser = self._parser
        headers = self._headers
        self._exchange = exchange = Exchange(self, parser.get_method(), self._url, headers)
        exchange.keep_alive = parser.should_keep_alive() and not self._server.closing
        if self._server.recorder is not None:
            self._server.begin(exchange)
        self._queue.append(exchange)
        if b"upgrade" in headers and parser.should_upgrade():
            self._ignore_upgrade(exchange)
        self._check_head(exchange, headers)
        if b"expect" in headers and not exchange.answered:
            self._expect(exchange, headers[b"expect"])
        if not exchange.answered:
            self.phase = Phase.BODY
            self.since = self._server.now

    def _check_head(self, exchange: Exchange, headers: dict[bytes, bytes]) -> None:
        limits, host = self._server.limits, headers.get(b"host")
        if self._head_bytes + len(self._url) > limits.max_header_bytes or len(headers) > limits.max_headers:
            self._refuse(431, "headers: too many, or too large")
        elif host not in self._server.hosts and not self._check_host(host):
            pass
        elif exchange.method == b"CONNECT":
            self._refuse(501, "method CONNECT: this server is no proxy")
        elif not exchange.keep_alive and not self._check_version():
            pass
        elif len(headers.get(b"content-length", b"")) > SMALL_DIGITS or b"transfer-encoding" in headers:
            self._admit_body(exchange)

    def on_body(self, body: bytes) -> None:
        exchange = self._exchange
        if self._muted or exchange is None:
            return
        if exchange.refusal is None:
            self._body.append(body)
        self._size += len(body)
        self._hold(exchange, len(body))

    def on_message_complete(self) -> None:
        exchange, body = self._exchange, self._body
        if body:
            self._body = []
        self._exchange = None
        if self._muted or exchange is None:
            return
        self.phase = Phase.BUSY
        exchange.body = body[0] if len(body) == 1 else b"".join(body)
        if self._waiting or len(self._queue) > self._server.limits.max_pipelined:
            self._waiting.append(exchange)
        else:
            self._server.dispatch(exchange)

    def _check_host(self, host: bytes | None) -> bool:
        """RFC 9112, 3.2: missing in no newer request, and always of the right form. Good ones are remembered."""
        if host is None:
            if self._parser.get_http_version() == "1.0":
                return True
            self._refuse(400, "header host: missing")
            return False
        if not _HOST.fullmatch(host):
            self._refuse(400, "header host: must be a host name or address, and a port if need be")
            return False
        if len(self._server.hosts) < MOST_HOSTS:
            self._server.hosts.add(host)
        return True

    def _check_version(self) -> bool:
        """Asked where a connection is not kept, as it is by requests of version 1.1 that do not say otherwise."""
        version = self._parser.get_http_version()
        if version == "0.9":
            self._refuse(400, "request line: it ends without a version, such as HTTP/1.1")
            return False
        if version not in {"1.0", "1.1"}:
            self._refuse(505, f"HTTP/{version[:10]}: HTTP/1.1 is spoken here")
            return False
        return True

    # ------------------------------------------------------------------------------------------ bodies
    def _admit_body(self, exchange: Exchange) -> None:
        """Asks the route how much it takes, before anything is read."""
        coding = exchange.headers.get(b"transfer-encoding")
        if coding is not None and not self._check_coding(coding):
            return
        limit = self._server.body_limit(exchange)
        if exchange.answered:
            return
        exchange.limit = limit
        if int(exchange.headers.get(b"content-length", b"0")) > limit:
            self._too_large(exchange)

    def _check_coding(self, value: bytes) -> bool:
        """RFC 9112, 6.1 and 6.3: where the body ends must be beyond doubt, and what it is said to be must be undone."""
        codings = [coding.strip() for coding in value.lower().split(b",")]
        if self._parser.get_http_version() == "1.0":
            self._refuse(400, "header transfer-encoding: not in HTTP/1.0")
        elif codings[-1] != b"chunked":
            self._refuse(400, "header transfer-encoding: must be chunked")
        elif len(codings) > 1:
            self._refuse(501, "header transfer-encoding: only chunked is known; send it without others")
        else:
            return True
        return False

    def _hold(self, exchange: Exchange, size: int) -> None:
        if self._size > exchange.limit > 0:
            self._too_large(exchange)
        elif exchange.refusal is None:
            self._hold_more(exchange, size)

    def _hold_more(self, exchange: Exchange, size: int) -> None:
        try:
            self._server.hold(exchange, exchange.held + size)
        except Unavailable as error:
            self.reject(exchange, error)

    def _too_large(self, exchange: Exchange) -> None:
        text = f"body: more than the {exchange.limit} bytes that are taken here"
        if exchange.limit == self._server.limits.max_buffered_bytes:
            text += ", all that this server's memory allows for bodies; a higher memory limit allows more"
        self.reject(exchange, PayloadTooLarge(text))

    def _expect(self, exchange: Exchange, value: bytes) -> None:
        if self._parser.get_http_version() == "1.0":  # RFC 9110, 10.1.1: such a client does not know what it says
            return
        if value.lower() != b"100-continue":
            self._refuse(417, "header expect: only 100-continue is known")
        elif exchange.refusal is not None:
            self.reject(exchange, exchange.refusal)  # instead of the word that the body waits for
        elif self._queue[0] is exchange and self._transport is not None:
            self._transport.write(wire.CONTINUE)

    # ------------------------------------------------------------------------------------------ answers
    def answer_json(self, exchange: Exchange, body: bytes) -> None:
        """200 without any particulars, which is nearly every answer."""
        plain = exchange.keep_alive and b"connection" not in exchange.headers and exchange.method != b"HEAD"
        if plain and len(body) < compress.LEAST and not exchange.answered and not self._server.closing:
            exchange.status = 200
            self._deliver(exchange, (b"%b%d\r\n\r\n%b" % (self._server.json_prefix, len(body), body),))
        else:
            self.answer(exchange, 200, {"content-type": "application/json"}, (body,))

    def answer_refusal(self, exchange: Exchange, error: QueueFull) -> None:
        """Of an overloaded model: it must cost far less than what it spares, and is the same for many."""
        plain = exchange.keep_alive and b"connection" not in exchange.headers and exchange.method != b"HEAD"
        if plain and not exchange.answered and not self._server.closing:
            exchange.status = error.status
            self._deliver(exchange, (self._server.refusal(error),))
        else:
            exchange.fail(error)

    def answer(
        self, exchange: Exchange, status: int, headers: Mapping[str, str], parts: Sequence[bytes | memoryview]
    ) -> None:
        """Only the first answer to an exchange counts."""
        if exchange.answered:
            return
        if b"accept-encoding" in exchange.headers and self._server.compress(exchange, Answer(status, headers, parts)):
            return
        exchange.status = status
        exchange.keep_alive = exchange.keep_alive and not self._server.closing
        length = sum(len(part) for part in parts)
        if length > (most := self._server.limits.max_owed_bytes):
            text = (
                f"answer: it has {length} bytes, and this server's memory allows {most}; ask for fewer rows or outputs"
            )
            exchange.fail(InvalidRequest(text))
            return
        connection = b"" if exchange.keep_alive else wire.CLOSE
        if exchange.keep_alive and b"connection" in exchange.headers:
            connection = wire.KEEP
        start = wire.head(status, self._server.date, headers, length, connection)
        if exchange.method == b"HEAD":
            parts = (start,)
        else:
            parts = (start + parts[0],) if len(parts) == 1 and length < 1 << 16 else (start, *parts)
        self._deliver(exchange, parts)

    def _deliver(self, exchange: Exchange, parts: Sequence[bytes | memoryview]) -> None:
        """Writes what is next in order, and whatever waited for it."""
        exchange.answered = True
        exchange.ready = parts
        exchange.work = None
        queue = self._queue
        while queue and (ready := queue[0].ready) is not None and self._transport is not None:
            done = queue.popleft()
            self._server.answered(done)
            if len(ready) == 1:
                self._transport.write(ready[0])
            else:
                self._transport.writelines(ready)
            if not done.keep_alive:
                self._close()
                return
        if not queue and self.phase is Phase.BUSY:
            self._enter(Phase.IDLE)
        if queue or self.owed or self.blocked is not None:
            self._owe()
        room = not self._reading and self.blocked is None and len(queue) < self._server.limits.max_pipelined
        if room or self._waiting:
            self._soon()

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _owe(self) -> None:
        """Counts what is written and not taken, and what waits for an answer before it."""
        if self._transport is None or self._transport.is_closing():
            return
        size = sum(len(part) for exchange in self._queue for part in exchange.ready or ())
        if self.blocked is not None:
            size += self._transport.get_write_buffer_size()
        self._server.owe(self, size)

    def later(self, exchange: Exchange, work: Coroutine[None, None, None]) -> None:
        self._server.later(exchange, work)

    def reject(self, exchange: Exchange, error: ServerError) -> None:
        """Answers before the request was read to its end, and so for the last time."""
        self.stop_reading_body(exchange)
        exchange.fail(error)

    def stop_reading_body(self, exchange: Exchange) -> None:
        """The answer will come before the request's end, which nobody wants any longer."""
        self._mute()
        exchange.keep_alive = False

    def _refuse(self, status: int, message: str) -> None:
        """What came is not what HTTP allows: nothing that follows it can be trusted either."""
        if self._muted:
            return
        exchange = self._exchange
        if exchange is None:
            exchange = Exchange(self, b"", self._url, {})
            self._queue.append(exchange)
        self._mute()
        exchange.keep_alive = False
        exchange.send(Response.json({"error": message}, status))

    def _malformed(self, error: httptools.HttpParserError) -> None:
        if self._queue and not self._queue[-1].keep_alive and self._exchange is None:
            self._mute()  # data after the last request that the client itself announced
        else:
            self._refuse(400, f"malformed HTTP: {error}")

    def _ignore_upgrade(self, exchange: Exchange) -> None:
        """RFC 9110, 7.8: a server may. But the parser reads nothing more after such a request, not even its body."""
        exchange.keep_alive = False
        if exchange.headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in exchange.headers:
            self._refuse(400, "header upgrade: not supported on a request with a body; send it without")

    # ------------------------------------------------------------------------------------------ the end
    @property
    def peer(self) -> str:
        """Address of the client, or of the proxy before it."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(name[0]) if name else ""

    def receives(self, exchange: Exchange) -> bool:
        """Whether the rest of the request has still to come."""
        return self._exchange is exchange

    @property
    def unanswered(self) -> int:
        return len(self._queue)

    def _mute(self) -> None:
        """Nothing more is parsed."""
        self._muted = True
        self._body = []
        self._rest = memoryview(b"")

    def _close(self) -> None:
        """Once everything that is owed is written."""
        if self._transport is None or self.phase is Phase.LINGER:
            return
        self._mute()
        if self.phase in {Phase.HEAD, Phase.BODY}:
            self._read(wanted=True)
            if self._transport.can_write_eof():  # TLS cannot: the client closes, who knows where the answer ends
                self._transport.write_eof()
            self._enter(Phase.LINGER)
        else:
            self._transport.close()

    def close_idle(self) -> None:
        """Ends a connection that owes no answer."""
        if not self._queue:
            self._muted = True
            if self._transport is not None:
                self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def check(self, now: float) -> None:
        """Called about once a second: cuts off who takes too long."""
        limits, waited = self._server.limits, now - self.since
        if self.blocked is not None and now - self.blocked > limits.write_timeout:
            before = self.owed
            self._owe()
            if before - self.owed < limits.body_rate * limits.write_timeout:
                self.abort()
            self.blocked = now
        elif self.phase is Phase.IDLE and not self._queue and waited > limits.idle_timeout:
            self.close_idle()
        elif self.phase is Phase.LINGER and waited > limits.linger_timeout:
            self.abort()
        elif self._muted or not self._reading:
            return
        elif self.phase is Phase.HEAD and waited > limits.header_timeout:
            self._refuse(408, f"headers: not complete within {limits.header_timeout:g} s")
        elif self.phase is Phase.BODY and waited > limits.body_grace + self._size / limits.body_rate:
            self._refuse(408, f"body: slower than {limits.body_rate} bytes per second")

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.since = self._server.now

    def _read(self, *, wanted: bool) -> None:
        if wanted == self._reading or self._transport is None or self._transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self.since = self._server.now  # the client could not send while nobody read
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()
