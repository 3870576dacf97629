"""Requests that no library would send, over raw sockets to the real process: exactly so many answers, each with its
status, the connection kept or closed, and nobody else the worse for it.

What two parsers could read differently is what request smuggling lives from (RFC 9112, section 11.2): behind each such
request stands a hidden one, which shows as a second answer where it is believed.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping

import pytest

from support import onnx_models
from support.raw_http import Answers, Outcome, connect, outcome
from support.server_process import ServerProcess, infer_body, server, wait_for

BODY = infer_body()
SIZE = len(BODY)
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: t\r\n\r\n"
POST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\n"
LIVE = "/v2/health/live"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("raw")
    small = onnx_models.write(onnx_models.identity(), folder / "m.onnx")
    wide = onnx_models.write(onnx_models.identity(shape=("n", 1_000_000)), folder / "wide.onnx")
    with server(folder / "s", "--model", f"m={small}", "--model", f"wide={wide}") as running:
        running.wait_ready()
        yield running
        assert running.process.poll() is None
        assert "Traceback" not in running.output


@pytest.fixture(autouse=True)
def still_serves(running: ServerProcess) -> Iterator[None]:
    yield
    assert running.call("POST", "/v2/models/m/infer", BODY)[0] == 200


def kept(*statuses: int) -> Outcome:
    return Outcome(statuses, kept=True)


def closed(*statuses: int) -> Outcome:
    return Outcome(statuses, kept=False)


def coded(value: bytes, *, name: bytes = b"Transfer-Encoding:", more: bytes = b"") -> bytes:
    return POST + name + value + b"\r\n" + more + b"\r\n" + chunked(BODY) + HIDDEN


def sized(value: bytes, body: bytes = BODY) -> bytes:
    return POST + b"Content-Length:" + value + b"\r\n\r\n" + body + HIDDEN


def chunked(*chunks: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    parts = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    return parts + b"0\r\n" + trailers + b"\r\n"


def in_chunks(raw: bytes) -> bytes:
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + raw + HIDDEN


def get(
    fields: bytes = b"", *, target: bytes = LIVE.encode(), version: bytes = b"HTTP/1.1", body: bytes = b""
) -> bytes:
    return b"GET " + target + b" " + version + b"\r\nHost: t\r\n" + fields + b"\r\n" + body + HIDDEN


TRANSFER_ENCODING = {
    "chunked": (coded(b" chunked"), kept(200, 404)),
    "no blank": (coded(b"chunked"), kept(200, 404)),
    "a tab": (coded(b"\tchunked"), kept(200, 404)),
    "a blank behind": (coded(b" chunked "), kept(200, 404)),
    "capitals": (coded(b" cHuNkEd"), kept(200, 404)),
    "empty": (coded(b""), closed(400)),
    "a comma before": (coded(b" ,chunked"), closed(501)),
    "a comma behind": (coded(b" chunked,"), closed(400)),
    "twice in one": (coded(b" chunked, chunked"), closed(400)),
    "quoted": (coded(b' "chunked"'), closed(400)),
    "a parameter": (coded(b" chunked;q=1"), closed(400)),
    "short": (coded(b" chunk"), closed(400)),
    "long": (coded(b" chunkedx"), closed(400)),
    "gzip alone": (coded(b" gzip"), closed(400)),
    "gzip before": (coded(b" gzip, chunked"), closed(501)),
    "identity before": (coded(b" identity, chunked"), closed(501)),
    "gzip in a line before": (coded(b" chunked", name=b"Transfer-Encoding: gzip\r\nTransfer-Encoding:"), closed(501)),
    "gzip in a line behind": (coded(b" chunked", more=b"Transfer-Encoding: gzip\r\n"), closed(400)),
    "a vertical tab": (coded(b" \x0bchunked"), closed(400)),
    "NUL": (coded(b" chunked\0"), closed(400)),
    "a Latin-1 blank": (coded(b" \xa0chunked"), closed(400)),
    "NUL in the name": (coded(b" chunked", name=b"Transfer-Encoding\0:"), closed(400)),
    "a tab before the colon": (coded(b" chunked", name=b"Transfer-Encoding\t:"), closed(400)),
    "a blank before the name": (coded(b" chunked", name=b" Transfer-Encoding:"), closed(400)),
    # Another header: there is no body then, and what was meant as one is no request.
    "an underscore in the name": (coded(b" chunked", name=b"Transfer_Encoding:"), closed(400, 501)),
    "of HTTP/1.0": (coded(b" chunked").replace(b"HTTP/1.1", b"HTTP/1.0", 1), closed(400)),
    "of HTTP/1.0, kept": (
        coded(b" chunked", more=b"Connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        closed(400),
    ),
    "of a GET": (get(b"Transfer-Encoding: chunked\r\n", body=b"0\r\n\r\n"), kept(200, 404)),
    "and a Content-Length": (coded(b" chunked", more=b"Content-Length: %d\r\n" % SIZE), closed(400)),
    "and a Content-Length before": (coded(b" chunked", name=b"Content-Length: 3\r\nTransfer-Encoding:"), closed(400)),
}
CONTENT_LENGTH = {
    "right": (sized(b" %d" % SIZE), kept(200, 404)),
    "zeros before": (sized(b" 000%d" % SIZE), kept(200, 404)),
    "blanks around": (sized(b"\t %d  " % SIZE), kept(200, 404)),
    "nothing": (sized(b" 0", b""), kept(400, 404)),
    "none": (POST + b"\r\n" + HIDDEN, kept(400, 404)),
    "of a GET": (get(b"Content-Length: 5\r\n", body=b"hello"), kept(200, 404)),
    "one too short": (sized(b" %d" % (SIZE - 1)), closed(400, 501)),
    "a fraction": (sized(b" %d.0" % SIZE), closed(400)),
    "an exponent": (sized(b" 1e2"), closed(400)),
    "an underscore": (sized(b" 1_0"), closed(400)),
    "a blank within": (sized(b" 1 0"), closed(400)),
    "Arabic digits": (sized(b" \xd9\xa1\xd9\xa0"), closed(400)),
    "a list": (sized(b" %d,%d" % (SIZE, SIZE)), closed(400)),
    "a comma": (sized(b" %d," % SIZE), closed(400)),
    "2^63": (sized(b" 9223372036854775808"), closed(413)),
    "2^64 - 1": (sized(b" 18446744073709551615"), closed(413)),
    "2^64": (sized(b" 18446744073709551616"), closed(400)),
    "twice, in two spellings": (sized(b" %d\r\ncontent-length: %d" % (SIZE, SIZE)), closed(400)),
    "an underscore in the name": (POST + b"Content_Length: 3\r\n\r\n" + HIDDEN, kept(400, 404)),
}
CHUNKS = {
    "small ones": (in_chunks(chunked(*(BODY[i : i + 1] for i in range(SIZE)))), kept(200, 404)),
    "capitals": (in_chunks(b"%X\r\n%b\r\n0\r\n\r\n" % (SIZE, BODY)), kept(200, 404)),
    "zeros before": (in_chunks(b"%b%x\r\n%b\r\n0\r\n\r\n" % (b"0" * 40, SIZE, BODY)), kept(200, 404)),
    "an extension": (in_chunks(chunked(BODY, extension=b';a="b;c"')), kept(200, 404)),
    "an extension with a line feed": (in_chunks(chunked(BODY, extension=b';a="b\nc"')), closed(400)),
    "an extension that is a line feed": (in_chunks(chunked(BODY, extension=b";\n")), closed(400)),
    "a blank behind the size": (in_chunks(b"%x \r\n%b\r\n0\r\n\r\n" % (SIZE, BODY)), closed(400)),
    "0x before the size": (in_chunks(b"0x%x\r\n%b\r\n0\r\n\r\n" % (SIZE, BODY)), closed(400)),
    "no size": (in_chunks(b"\r\n%b\r\n0\r\n\r\n" % BODY), closed(400)),
    "a size beyond 2^64": (in_chunks(b"1%016x\r\n%b\r\n0\r\n\r\n" % (SIZE, BODY)), closed(400)),
    "nothing behind the data": (in_chunks(b"%x\r\n%b0\r\n\r\n" % (SIZE, BODY)), closed(400)),
    "other bytes behind the data": (in_chunks(b"%x\r\n%bXX0\r\n\r\n" % (SIZE, BODY)), closed(400)),
    "a line feed behind the data": (in_chunks(b"%x\r\n%b\n0\r\n\r\n" % (SIZE, BODY)), closed(400)),
    "a return behind the size": (in_chunks(b"%x\r%b\r\n0\r\n\r\n" % (SIZE, BODY)), closed(400)),
    "line feeds at the end": (in_chunks(b"%x\r\n%b\r\n0\n\n" % (SIZE, BODY)), closed(400)),
    "a line feed at the end": (in_chunks(b"%x\r\n%b\r\n0\r\n\n" % (SIZE, BODY)), closed(400)),
    "a trailer": (in_chunks(chunked(BODY, trailers=b"A: b\r\n")), kept(200, 404)),
    "a trailer Host": (in_chunks(chunked(BODY, trailers=b"Host: u\r\n")), kept(200, 404)),
    "a trailer Content-Length": (in_chunks(chunked(BODY, trailers=b"Content-Length: 50\r\n")), closed(400)),
    "a trailer Transfer-Encoding": (in_chunks(chunked(BODY, trailers=b"Transfer-Encoding: chunked\r\n")), closed(400)),
    "a trailer that is none": (in_chunks(chunked(BODY, trailers=b"A b: c\r\n")), closed(400)),
}
LINES = {
    "line feeds": (b"GET /v2 HTTP/1.1\nHost: t\n\n" + HIDDEN, closed(400)),
    "a line feed at the end": (b"GET /v2 HTTP/1.1\r\nHost: t\r\n\n" + HIDDEN, closed(400)),
    "returns": (b"GET /v2 HTTP/1.1\rHost: t\r\r" + HIDDEN, closed(400)),
    "empty lines before": (b"\r\n\r\n" + get(), kept(200, 404)),
    "a blank before": (b" " + get(), closed(501)),
    "NUL before": (b"\0" + get(), closed(501)),
    "a folded header": (get(b"X: a\r\n b\r\n"), closed(400)),
    "a header folded by a tab": (get(b"X: a\r\n\tb\r\n"), closed(400)),
    "a header folded by a line feed": (get(b"X: a\n b\r\n"), closed(400)),
    "a blank before the first header": (b"GET /v2 HTTP/1.1\r\n Host: t\r\n\r\n" + HIDDEN, closed(400)),
    "no colon": (get(b"XY\r\n"), closed(400)),
    "no name": (get(b": a\r\n"), closed(400)),
    **{
        f"a name with {byte!r}": (get(b"X%bY: a\r\n" % byte), closed(400))
        for byte in (b"\0", b" ", b"\t", b"\r", b"\n", b"\x7f", b"\xff", b"(", b'"', b"/", b"{", b"@")
    },
    **{
        f"a value with {byte!r}": (get(b"X: a%bb\r\n" % byte), closed(400))
        for byte in (b"\0", b"\r", b"\n", b"\x07", b"\x0b", b"\x7f")
    },
    "a value of nothing": (get(b"X:\r\n"), kept(200, 404)),
    "a value of Latin-1": (get(b"X: \xff\r\n"), kept(200, 404)),
}
TARGETS = {
    "absolute": (get(target=b"http://t/v2/health/live"), kept(200, 404)),
    "absolute, of another host": (get(target=b"http://other/v2/health/live"), kept(200, 404)),
    "an authority": (get(target=b"t:80"), closed(400)),
    "CONNECT": (b"CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n" + HIDDEN, closed(501)),
    "CONNECT with a body": (
        b"CONNECT t:80 HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello" + HIDDEN,
        closed(501),
    ),
    "an asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n" + HIDDEN, kept(404, 404)),
    "no slash": (get(target=b"v2/health/live"), closed(400)),
    "two slashes": (get(target=b"//t/v2/health/live"), kept(404, 404)),
    "dots": (get(target=b"/v2/../v2/health/live"), kept(404, 404)),
    "dots in hexadecimal": (get(target=b"/v2/%2e%2e/v2/health/live"), kept(404, 404)),
    "line ends in hexadecimal": (get(target=b"/%0d%0aX:%20y"), kept(404, 404)),
    "NUL": (get(target=b"/v2\0"), closed(400)),
    "a tab": (get(target=b"/a\tb"), closed(400)),
    "a blank": (get(target=b"/a b"), closed(400)),
    "UTF-8": (get(target="/ü".encode()), closed(400)),
    "tabs between": (b"GET\t/v2\tHTTP/1.1\r\nHost: t\r\n\r\n" + HIDDEN, closed(501)),
    "a blank behind the version": (get(version=b"HTTP/1.1 "), closed(400)),
    "long": (get(target=b"/" + b"a" * 20_000), kept(404, 404)),
    "too long": (get(target=b"/" + b"a" * 40_000), closed(431)),
    "far too long": (get(target=b"/" + b"a" * 1_000_000), closed(431)),
}
HOSTS = {
    value: (b"GET /v2/health/live HTTP/1.1\r\nHost:" + value + b"\r\n\r\n" + HIDDEN, answer)
    for value, answer in {
        b"": kept(200, 404),
        b" t:8080": kept(200, 404),
        b" t:": kept(200, 404),
        b" [::1]:8080": kept(200, 404),
        b" a_b.c-d.example": kept(200, 404),
        b" a b": closed(400),
        b" t/x": closed(400),
        b" u@t": closed(400),
        b" a, b": closed(400),
        b" t:x": closed(400),
        b" [::1": closed(400),
        b" t?x": closed(400),
    }.items()
} | {
    b"none": (b"GET /v2/health/live HTTP/1.1\r\n\r\n" + HIDDEN, closed(400)),
    b"twice": (get(b"Host: t\r\n"), closed(400)),
    b"none in 1.0": (b"GET /v2/health/live HTTP/1.0\r\n\r\n" + HIDDEN, closed(200)),
}
VERSIONS = {
    "1.0": (get(version=b"HTTP/1.0"), closed(200)),
    "1.0, kept": (get(b"Connection: keep-alive\r\n", version=b"HTTP/1.0"), kept(200, 404)),
    "none": (get(version=b"").replace(b"live \r\n", b"live\r\n", 1), closed(400)),
    "2.0": (get(version=b"HTTP/2.0"), closed(505)),
    "1.9": (get(version=b"HTTP/1.9"), closed(400)),
    "1": (get(version=b"HTTP/1"), closed(400)),
    "11": (get(version=b"HTTP/11"), closed(400)),
    "more behind it": (get(version=b"HTTP/1.1x"), closed(400)),
    "small letters": (get(version=b"http/1.1"), closed(400)),
    "another protocol": (get(version=b"ICE/1.0"), closed(400)),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", closed(400)),
    "HTTP/2 by an upgrade": (
        get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        closed(200),
    ),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500, closed(501)),
}
CONNECTIONS = {
    "close": (get(b"Connection: close\r\n"), closed(200)),
    "close, and more": (get(b"Connection: close, keep-alive\r\n"), closed(200)),
    "close, and rubbish": (get(b"Connection: close\r\n").replace(HIDDEN, b"\0\1rubbish"), closed(200)),
    "close, and what smuggles": (get(b"Connection: close\r\n").replace(HIDDEN, coded(b" xchunked")), closed(200)),
    "a header of the framing as a hop's own": (get(b"Connection: content-length, host\r\n"), kept(200, 404)),
    "an upgrade with a body": (sized(b" %d\r\nConnection: upgrade\r\nUpgrade: x" % SIZE), closed(400)),
    "an upgrade with chunks": (coded(b" chunked", more=b"Connection: upgrade\r\nUpgrade: x\r\n"), closed(400)),
    "an upgrade without Connection": (get(b"Upgrade: h2c\r\n"), kept(200, 404)),
    "a bad second": (get().replace(HIDDEN, b"GET / HTTP/1.1\r\n bad\r\n\r\n" + HIDDEN), closed(200, 400)),
    "a second that smuggles": (
        get().replace(HIDDEN, POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN),
        closed(200, 400),
    ),
    "a second that is too large": (
        get().replace(HIDDEN, POST + b"Content-Length: 9999999999\r\n\r\n" + HIDDEN),
        closed(200, 413),
    ),
    "waits for 100": (sized(b" %d\r\nExpect: 100-continue" % SIZE), kept(100, 200, 404)),
    "waits for 100, with chunks": (coded(b" chunked", more=b"Expect: 100-continue\r\n"), kept(100, 200, 404)),
    "waits for 100 in HTTP/1.0": (
        sized(b" %d\r\nExpect: 100-continue" % SIZE).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        closed(200),
    ),
    "waits for 100 of too much": (sized(b" 9999999999\r\nExpect: 100-continue", b""), closed(413)),
    "expects something else": (get(b"Expect: 200-ok\r\n"), closed(417)),
    "nothing": (b"", kept()),
    "empty lines": (b"\r\n\r\n", kept()),
}
SIZES = {
    "a header of 20 kB": (get(b"X: " + b"a" * 20_000 + b"\r\n"), kept(200, 404)),
    "a header of 40 kB": (get(b"X: " + b"a" * 40_000 + b"\r\n"), closed(431)),
    "a name of 40 kB": (get(b"a" * 40_000 + b": x\r\n"), closed(431)),
    "90 headers": (get(b"".join(b"X%d: y\r\n" % i for i in range(90))), kept(200, 404)),
    "110 headers": (get(b"".join(b"X%d: y\r\n" % i for i in range(110))), closed(431)),
    "40,000 times one header": (get(b"X:\r\n" * 40_000), closed(431)),
    "a method of 50 kB": (b"A" * 50_000 + b" / HTTP/1.1\r\nHost: t\r\n\r\n" + HIDDEN, closed(501)),
    "an endless extension": (in_chunks(chunked(BODY, extension=b";a=" + b"x" * 2_000_000)), closed(400)),
    "endless trailers": (in_chunks(chunked(BODY, trailers=b"A: x\r\n" * 400_000)), closed(400)),
    "an endless trailer": (in_chunks(chunked(BODY, trailers=b"A: " + b"x" * 2_000_000 + b"\r\n")), closed(400)),
}
Rows = Mapping[str, tuple[bytes, Outcome]] | Mapping[bytes, tuple[bytes, Outcome]]
FAMILIES: Mapping[str, Rows] = {
    "transfer-encoding": TRANSFER_ENCODING,
    "content-length": CONTENT_LENGTH,
    "chunks": CHUNKS,
    "lines": LINES,
    "target": TARGETS,
    "host": HOSTS,
    "version": VERSIONS,
    "connection": CONNECTIONS,
    "size": SIZES,
}
ROWS = {
    f"{family}: {name if isinstance(name, str) else name.decode()}": row
    for family, rows in FAMILIES.items()
    for name, row in rows.items()
}


@pytest.mark.parametrize(("raw", "expected"), ROWS.values(), ids=ROWS.keys())
def test_each_has_its_answers_and_no_more(running: ServerProcess, raw: bytes, expected: Outcome) -> None:
    assert outcome(running.port, raw) == expected


def test_a_head_of_a_request_behind_many_is_not_taken_for_a_large_one(running: ServerProcess) -> None:
    """They come in one packet, and what is bounded is a single head."""
    one = b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\nX: " + b"a" * 1000 + b"\r\n\r\n"
    with connect(running.port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        client.sendall(one * 60 + one[:500])
        answers = Answers(client)
        assert [(answers.next() or (0,))[0] for _ in range(60)] == [200] * 60
        client.sendall(one[500:])
        assert (answers.next() or (0,))[0] == 200


def test_an_answer_to_head_has_no_body(running: ServerProcess) -> None:
    with connect(running.port) as client:
        client.sendall(b"HEAD /v2 HTTP/1.1\r\nHost: t\r\n\r\nGET /v2 HTTP/1.1\r\nHost: t\r\n\r\n")
        answers = Answers(client)
        assert answers.next(head=True) == (200, b"")
        answer = answers.next()
        assert answer is not None
        assert answer[0] == 200
        assert b"modelpier" in answer[1]


@pytest.mark.parametrize(
    "raw", [b"", POST[:20], POST, POST + b"Content-Length: 100\r\n\r\n" + b"{", in_chunks(b"5\r\nab")[:-40], b"\r\n"]
)
def test_who_ends_early_gets_no_answer(running: ServerProcess, raw: bytes) -> None:
    with connect(running.port) as client:
        client.sendall(raw)
        client.shutdown(socket.SHUT_WR)
        assert Answers(client).next() is None


def test_slow_clients_are_cut_off_and_hold_up_nobody(running: ServerProcess) -> None:
    """All at once: drips of a head, of a body, of chunks, of a chunk's extension, and one that reads no answer."""
    drips = {
        "head": (POST, b"X: y\r\n", 408),
        "line": (b"GET /", b"a", 408),
        "body": (POST + b"Content-Length: 9000\r\n\r\n", b" ", 408),
        "chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 408),
        "chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\n8000000000000000\r\n", b" ", 408),
        "extension": (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x", 408),
    }
    clients = {name: [connect(running.port, 60) for _ in range(5)] for name in drips}
    deaf = connect(running.port, 60)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    large = b"\0" * 4_000_000
    head = b"POST /v2/models/wide/infer HTTP/1.1\r\nHost: t\r\nInference-Header-Content-Length: 0\r\n"
    deaf.sendall(head + b"Content-Length: %d\r\n\r\n" % len(large) + large)
    for name, (start, _, _) in drips.items():
        for client in clients[name]:
            client.sendall(start)
    found: dict[str, list[int]] = {name: [] for name in drips}
    waiting = {client: name for name, group in clients.items() for client in group}
    deadline = 60.0

    def drip() -> bool:
        """One byte or so of each; true once all have their answer."""
        assert running.call("POST", "/v2/models/m/infer", BODY)[0] == 200
        for client, name in list(waiting.items()):
            client.settimeout(0.02)
            try:
                answer = Answers(client).next()
            except TimeoutError:
                client.sendall(drips[name][1])
                continue
            found[name].append(answer[0] if answer is not None else 0)
            client.settimeout(20)
            client.close()
            del waiting[client]
        return not waiting

    wait_for(drip, deadline)
    assert found == {name: [status] * 5 for name, (_, _, status) in drips.items()}
    wait_for(lambda: connections(running) <= 1, 60)  # this look itself: the deaf one is gone too
    deaf.close()


def connections(running: ServerProcess) -> float:
    text = running.call("GET", "/metrics")[1].decode()
    return float(next(line for line in text.splitlines() if line.startswith("modelpier_http_connections ")).split()[1])


def test_as_many_idle_connections_as_there_may_be(running: ServerProcess) -> None:
    most = 4096  # HttpLimits.max_connections
    held = []
    try:
        for _ in range(most):
            client = connect(running.port)
            held.append(client)
        for client in (held[0], held[most // 2], held[-1]):
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n")
            assert (Answers(client).next() or (0,))[0] == 200
        with connect(running.port) as one_more:
            answers = Answers(one_more)
            assert (answers.next() or (0,))[0] == 503
            assert answers.next() is None
        held.pop().close()
        wait_for(lambda: running.call("GET", LIVE)[0] == 200)
    finally:
        for client in held:
            client.close()
    wait_for(lambda: connections(running) <= 1)
