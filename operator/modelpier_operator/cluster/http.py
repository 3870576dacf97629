"""HTTP/1.1 to one server, for `client`: kept connections, one request at a time on each, answers whole or as a stream.

Of the operator's CPU time in a burst of creations the general client took a third: a request costs 0.25 ms with
aiohttp and a quarter of it here (docs/adr/0007). Parsing is llhttp's, by httptools, TLS is Python's; what is left is
what an API server needs: no redirects, no cookies, no compression, no proxy.
Sources: RFC 9112 (messages, 9.3 persistence), RFC 9110 section 9.2.2 (which requests may be sent again).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

CONNECT_TIMEOUT = 5.0
IDLE_LIMIT = 60.0
"""Seconds: the API server closes a connection after 90 without a request, and what is sent at that moment is lost."""
STREAM_BUFFER = 1 << 20
"""Bytes of a stream that wait to be read; then the server has to wait."""

Before = Callable[[], None]


@dataclass(slots=True)
class Answer:
    """`headers`: names in lower case."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""

    def header(self, name: str) -> str | None:
        value = self.headers.get(name.encode())
        return None if value is None else value.decode("latin-1")


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port of a server, and the path in front of all of its paths."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    authority: str
    prefix: str

    @classmethod
    def of(cls, url: str, tls: ssl.SSLContext) -> Origin:
        """Raises ValueError for what is no http or https URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the API server's address {url!r} is no http or https URL")
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        authority = parts.netloc.rpartition("@")[2]
        return cls(parts.hostname, port, tls if secure else None, authority, parts.path.rstrip("/"))

    async def connect(self) -> Connection:
        """Raises OSError, ssl.SSLError among them; TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT):
            found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for left in range(len(addresses), 0, -1):
            # One by one, because uvloop knows no Happy Eyeballs: a dead address must leave time for the next one.
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT / len(addresses)):
                    return await self._connect(loop, addresses[-left])
            except OSError:
                if left == 1:
                    raise
        raise OSError(f"{self.host} has no address")

    async def _connect(self, loop: asyncio.AbstractEventLoop, address: str) -> Connection:
        _, made = await loop.create_connection(
            Connection, address, self.port, ssl=self.tls, server_hostname=self.host if self.tls else None
        )
        return made

    def head(self, method: str, target: str, fields: str, length: int | None) -> bytes:
        """Request line and headers. `fields`: whole lines."""
        size = "" if length is None else f"Content-Length: {length}\r\n"
        return f"{method} {self.prefix}{target} HTTP/1.1\r\nHost: {self.authority}\r\n{fields}{size}\r\n".encode(
            "latin-1"
        )


class Connection(asyncio.Protocol):
    """One request at a time; whoever gave up on its answer closes it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer = Answer()
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        """Bytes in `_chunks` of a stream."""
        self._streamed = False
        self._paused = False
        self._complete = True
        self._until_the_end = False
        """The body of the answer ends with the connection."""
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.idle_since = self._loop.time()
        self.silent = True
        """No byte of the answer has come."""
        self.reusable = True

    # ------------------------------------------------------------------------------------------ by `Client`
    async def ask(self, request: bytes) -> Answer:
        """The whole answer. Raises OSError; cancelled or failed, the connection is closed."""
        try:
            self._send(request)
            while not self._complete:
                await self._news()
        except BaseException:
            self.close()
            raise
        answer = self._answer
        answer.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self.idle_since = self._loop.time()
        return answer

    async def begin(self, request: bytes) -> Answer:
        """The head of an answer whose body `chunks` reads. Raises OSError."""
        self._streamed = True
        self._send(request)
        while not self._answer.status:
            await self._news()
        return self._answer

    async def chunks(self, silence: float | None = None) -> AsyncIterator[bytes]:
        """The body as it comes. Raises OSError; TimeoutError after `silence` seconds without a byte."""
        while self._chunks or not self._complete:
            if not self._chunks:
                async with asyncio.timeout(silence):
                    await self._news()
                continue
            data = b"".join(self._chunks)
            self._chunks.clear()
            self._waiting = 0
            if self._paused and self._transport is not None:
                self._paused = False
                self._transport.resume_reading()
            yield data

    def close(self) -> None:
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def _send(self, request: bytes) -> None:
        if self._transport is None or self._error:
            raise self._error or ConnectionResetError("the server closed the connection")
        self._answer, self._complete, self.silent = Answer(), False, True
        self._transport.write(request)

    async def _news(self) -> None:
        """Until something has come. Raises what ended the connection."""
        if self._error:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ------------------------------------------------------------------------------------------ from asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.silent = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(ConnectionError(f"the answer is not HTTP: {error}"))
            return
        if self._streamed:
            self._wake()
            if self._waiting > STREAM_BUFFER and not self._paused and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if error is None and self._until_the_end and not self._complete:
            # RFC 9112, 6.3: neither a length nor chunks. Load balancers answer so.
            self.reusable = False
            self._complete = True
        self._fail(error or ConnectionResetError("the server closed the connection"))

    def _fail(self, error: Exception) -> None:
        self.close()
        if self._error is None:
            self._error = error
        self._wake()

    # ------------------------------------------------------------------------------------------ from httptools
    def on_message_begin(self) -> None:
        if self._complete:
            # Out of `feed_data`, so that nothing of it gets into the answer before.
            raise ConnectionError("an answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self._answer.status = status
            framed = self._answer.headers.keys() & {b"content-length", b"transfer-encoding"}
            self._until_the_end = not framed and status not in (204, 304)

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._waiting += len(body)

    def on_message_complete(self) -> None:
        if not self._answer.status:
            self._answer = Answer()  # 1xx: the answer itself is still to come
            return
        self._complete = True
        self.reusable = self.reusable and self._parser.should_keep_alive()
        self._wake()


class Pool:
    """Connections that wait for their next request. How many are in use at once is the caller's matter."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._idle: deque[Connection] = deque()
        """The one used last at the right: surplus ones age at the left."""
        self._streams: set[Connection] = set()
        self._closed = False

    async def ask(self, head: bytes, body: bytes = b"", *, again: bool, before: Before | None = None) -> Answer:
        """`before` is called once there is a connection, at the moment in which the request goes out; it may raise.
        `again`: the request may be sent anew when a kept connection turns out to be closed.

        Raises OSError, TimeoutError, and whatever `before` raises.
        """
        connection = self._kept()
        if connection is not None:
            try:
                return await self._ask(connection, head + body, before)
            except asyncio.CancelledError:
                # Its time was over, most likely on a path that swallows everything: the other kept ones are no better.
                self._drop_idle()
                raise
            except OSError:
                if not (again and connection.silent):
                    raise
        return await self._ask(await self._origin.connect(), head + body, before)

    async def _ask(self, connection: Connection, request: bytes, before: Before | None) -> Answer:
        try:
            if before is not None:
                before()
            return await connection.ask(request)
        finally:
            if connection.reusable and not self._closed:
                self._idle.append(connection)
            else:
                connection.close()

    @asynccontextmanager
    async def stream(self, head: bytes, seconds: float) -> AsyncIterator[tuple[Answer, Connection]]:
        """An answer of any length, on a connection of its own; its head must come within `seconds`.

        Raises OSError, TimeoutError.
        """
        connection = await self._origin.connect()
        self._streams.add(connection)
        try:
            async with asyncio.timeout(seconds):
                answer = await connection.begin(head)
            yield answer, connection
        finally:
            self._streams.discard(connection)
            connection.close()

    def _kept(self) -> Connection | None:
        oldest = asyncio.get_running_loop().time() - IDLE_LIMIT
        while self._idle and (self._idle[0].idle_since < oldest or not self._idle[0].reusable):
            self._idle.popleft().close()
        while self._idle:
            if (connection := self._idle.pop()).reusable:
                return connection
        return None

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def close(self) -> None:
        self._closed = True
        self._drop_idle()
        for connection in self._streams:
            connection.close()
