"""Connections and their pool against a server that answers as each test scripts it, byte by byte."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from modelpier_cluster import pki
from modelpier_operator.cluster import http
from modelpier_operator.cluster.http import Origin, Pool

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Script = Callable[[int, bytes, asyncio.StreamWriter], Awaitable[None]]
"""Called with the number of the connection (from 1), a request's head and where to answer."""


class Server:
    def __init__(self, script: Script) -> None:
        self.script, self.connections, self.heads = script, 0, list[bytes]()
        self.ended = asyncio.Event()
        """A client has closed a connection."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                await self.script(number, head, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            self.ended.set()
        finally:
            writer.close()


@asynccontextmanager
async def served(script: Script) -> AsyncIterator[tuple[Server, Pool, Origin]]:
    server = Server(script)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    origin = Origin.of(f"http://127.0.0.1:{port}/prefix/", ssl.create_default_context())
    pool = Pool(origin)
    try:
        yield server, pool, origin
    finally:
        pool.close()
        listening.close()


async def fine(_number: int, _head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


def get(origin: Origin) -> bytes:
    return origin.head("GET", "/api", "", None)


async def test_a_connection_is_used_again_and_the_path_in_front_is_kept() -> None:
    async with served(fine) as (server, pool, origin):
        for _ in range(3):
            answer = await pool.ask(get(origin), again=True)
            assert (answer.status, answer.body) == (200, b"ok")
        assert server.connections == 1
        assert server.heads[0].startswith(b"GET /prefix/api HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_a_connection_that_the_server_gives_up_is_not_used_again() -> None:
    async def once(_number: int, _head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    async with served(once) as (server, pool, origin):
        for _ in range(2):
            assert (await pool.ask(get(origin), again=True)).body == b"ok"
        assert server.connections == 2


async def test_a_connection_that_waited_for_long_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(fine) as (server, pool, origin):
        await pool.ask(get(origin), again=True)
        monkeypatch.setattr(http, "IDLE_LIMIT", -1.0)
        await pool.ask(get(origin), again=True)
        assert server.connections == 2


@pytest.mark.parametrize("again", [True, False])
async def test_what_may_be_sent_again_survives_a_kept_connection_that_breaks(again: bool) -> None:
    async def second_time_silent(number: int, _head: bytes, writer: asyncio.StreamWriter) -> None:
        if number == 1 and len(server.heads) > 1:
            writer.close()
        else:
            writer.write(OK)

    async with served(second_time_silent) as (server, pool, origin):
        await pool.ask(get(origin), again=again)
        if again:
            assert (await pool.ask(get(origin), again=again)).body == b"ok"
        else:
            with pytest.raises(OSError, match="closed"):
                await pool.ask(get(origin), again=again)
        assert server.connections == (2 if again else 1)


async def test_an_answer_that_broke_off_is_asked_for_only_once() -> None:
    async def half(_number: int, _head: bytes, writer: asyncio.StreamWriter) -> None:
        if len(server.heads) == 1:
            writer.write(OK)
            return
        writer.write(OK[:-1])
        writer.close()

    async with served(half) as (server, pool, origin):
        await pool.ask(get(origin), again=True)
        with pytest.raises(OSError, match="closed"):
            await pool.ask(get(origin), again=True)
        assert len(server.heads) == 2


async def test_a_body_in_chunks_after_an_interim_answer() -> None:
    async def chunked(_number: int, _head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
        await writer.drain()
        writer.write(b"HTTP/1.1 429 Too Many\r\nRetry-After: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await writer.drain()
        writer.write(b"2\r\nbc\r\n0\r\n\r\n")

    async with served(chunked) as (server, pool, origin):
        for _ in range(2):
            answer = await pool.ask(get(origin), again=True)
            assert (answer.status, answer.body, answer.header("retry-after")) == (429, b"abc", "3")
            assert answer.header("link") is None
        assert server.connections == 1


async def test_what_is_no_http_is_an_error() -> None:
    async def babble(_number: int, _head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0\r\n")

    async with served(babble) as (_, pool, origin):
        with pytest.raises(OSError, match="not HTTP"):
            await pool.ask(get(origin), again=False)


async def test_an_answer_that_nobody_asked_for_gets_into_no_other_one() -> None:
    async def twice(_number: int, _head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + OK.replace(b"ok", b"no"))

    async with served(twice) as (server, pool, origin):
        for _ in range(2):
            assert (await pool.ask(get(origin), again=False)).body == b"ok"
        assert server.connections == 2


async def test_who_is_cancelled_leaves_no_half_answer_to_the_next_request() -> None:
    async def slow(number: int, _head: bytes, writer: asyncio.StreamWriter) -> None:
        if number > 1:
            writer.write(OK)

    async with served(slow) as (server, pool, origin):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await pool.ask(get(origin), again=False)
        async with asyncio.timeout(5):
            await server.ended.wait()
        assert (await pool.ask(get(origin), again=False)).body == b"ok"
        assert server.connections == 2


async def test_a_veto_at_the_last_moment_sends_nothing_and_keeps_the_connection() -> None:
    def veto() -> None:
        raise PermissionError("too late")

    async with served(fine) as (server, pool, origin):
        with pytest.raises(PermissionError):
            await pool.ask(get(origin), again=False, before=veto)
        assert (await pool.ask(get(origin), again=False)).body == b"ok"
        assert (server.connections, len(server.heads)) == (1, 1)


async def test_a_stream_that_nobody_reads_makes_the_server_wait() -> None:
    sent, piece = 0, b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

    async def endless(_number: int, _head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(1024):
            writer.write(piece)
            await writer.drain()
            sent += 1
        writer.write(b"0\r\n\r\n")

    async with served(endless) as (_, pool, origin), pool.stream(get(origin), 5) as (answer, stream):
        assert answer.status == 200
        async with asyncio.timeout(20):
            while not stream._paused:  # noqa: ASYNC110 - a flag
                await asyncio.sleep(0.005)
        kept = sum(map(len, stream._chunks))
        assert http.STREAM_BUFFER < kept < 2 * http.STREAM_BUFFER, "what it kept when it stopped reading"
        assert sent < 1024, "64 MiB went into memory"
        assert sum([len(chunk) async for chunk in stream.chunks(5)]) == 1024 * 0x10000


async def test_a_stream_that_falls_silent_is_noticed() -> None:
    async def one(_number: int, _head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")

    async with served(one) as (_, pool, origin), pool.stream(get(origin), 5) as (_, stream):
        chunks = stream.chunks(0.1)
        assert await anext(chunks) == b"a"
        with pytest.raises(TimeoutError):
            await anext(chunks)


async def test_a_body_that_ends_with_its_connection() -> None:
    async def balancer(_number: int, _head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 7\r\n\r\nno server is available")
        writer.close()

    async with served(balancer) as (server, pool, origin):
        for _ in range(2):
            answer = await pool.ask(get(origin), again=True)
            assert (answer.status, answer.body, answer.header("retry-after")) == (503, b"no server is available", "7")
        assert server.connections == 2


async def test_a_change_of_protocol_is_an_error() -> None:
    async def switch(_number: int, _head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello")

    async with served(switch) as (_, pool, origin):
        with pytest.raises(OSError, match="not HTTP"):
            await pool.ask(get(origin), again=False)


async def test_one_request_whose_time_is_over_takes_the_other_kept_connections_along() -> None:
    quiet = False

    async def hole(_number: int, _head: bytes, writer: asyncio.StreamWriter) -> None:
        if not quiet or server.connections > 4:
            await asyncio.sleep(0.05)
            writer.write(OK)

    async with served(hole) as (server, pool, origin):
        await asyncio.gather(*(pool.ask(get(origin), again=True) for _ in range(4)))
        assert server.connections == 4
        quiet = True
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await pool.ask(get(origin), again=True)
        assert (await pool.ask(get(origin), again=True)).body == b"ok"
        assert server.connections == 5


async def test_nothing_is_kept_once_the_pool_is_closed() -> None:
    async def slow(_number: int, _head: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(OK)

    go = asyncio.Event()
    async with served(slow) as (server, pool, origin):
        asking = asyncio.ensure_future(pool.ask(get(origin), again=False))
        async with asyncio.timeout(5):
            while not server.heads:  # noqa: ASYNC110 - a list
                await asyncio.sleep(0.005)
            pool.close()
            go.set()
            assert (await asking).body == b"ok"
            await server.ended.wait()


async def test_the_next_address_gets_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, names = asyncio.get_running_loop(), socket.getaddrinfo

    async def two(host: str, port: int, **how: Any) -> Any:
        return [*names("127.0.0.2", 1, type=socket.SOCK_STREAM), *names(host, port, **how)]

    async with served(fine) as (_, pool, origin):
        monkeypatch.setattr(loop, "getaddrinfo", two)
        connect, tried = loop.create_connection, list[str]()

        async def dead(protocol: Any, host: str, port: int, **how: Any) -> Any:
            tried.append(host)
            if host == "127.0.0.2":
                await asyncio.sleep(60)
            return await connect(protocol, host, port, **how)

        monkeypatch.setattr(loop, "create_connection", dead)
        monkeypatch.setattr(http, "CONNECT_TIMEOUT", 0.2)
        assert (await pool.ask(get(origin), again=False)).body == b"ok"
        assert tried == ["127.0.0.2", "127.0.0.1"]


# ------------------------------------------------------------------------------------------------ as in production
def test_over_tls_on_the_loop_of_production(tmp_path: Path) -> None:
    """uvloop brings transports of its own, and TLS changes how data come and connections end."""
    pki.create_pki(tmp_path, ["127.0.0.1"])
    there, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    there.load_cert_chain(tmp_path / "apiserver.crt", tmp_path / "apiserver.key")
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

    async def script(number: int, head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"/watch " in head:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(100):
                writer.write(piece)
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        elif b"/end " in head:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\nno")
            writer.close()
        elif number == 2 and b"/break " in head:
            writer.close()
        else:
            writer.write(OK)

    async def scenario() -> None:
        server = Server(script)
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=there)
        origin = Origin.of(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}", ours)
        pool = Pool(origin)
        for _ in range(2):
            assert (await pool.ask(get(origin), again=False)).body == b"ok"
        assert server.connections == 1
        answer = await pool.ask(origin.head("GET", "/end", "", None), again=False)
        assert (answer.status, answer.body) == (403, b"no")
        assert (await pool.ask(get(origin), again=False)).body == b"ok"
        assert (await pool.ask(origin.head("GET", "/break", "", None), again=True)).body == b"ok"
        assert server.connections == 3
        async with pool.stream(origin.head("GET", "/watch", "", None), 5) as (_, stream):
            assert sum([len(chunk) async for chunk in stream.chunks(10)]) == 100 * 0x10000
        stranger = Pool(Origin.of(f"https://localhost:{origin.port}", ssl.create_default_context()))
        with pytest.raises(ssl.SSLError, match="certificate"):
            await stranger.ask(get(origin), again=True)
        pool.close()
        listening.close()

    uvloop.run(scenario())


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "prefix"),
    [
        ("https://a.example", "a.example", 443, "a.example", ""),
        ("https://[::1]:6443/k8s/c-1", "::1", 6443, "[::1]:6443", "/k8s/c-1"),
        ("http://a.example:8001/", "a.example", 8001, "a.example:8001", ""),
    ],
)
def test_addresses(url: str, host: str, port: int, authority: str, prefix: str) -> None:
    found = Origin.of(url, ssl.create_default_context())
    assert (found.host, found.port, found.authority, found.prefix) == (host, port, authority, prefix)
    assert (found.tls is None) == url.startswith("http:")


def test_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="no http or https"):
        Origin.of("unix:///run/api", ssl.create_default_context())
