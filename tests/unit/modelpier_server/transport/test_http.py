"""HTTP/1.1 as such: framing, order, limits, slow and rude clients."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from modelpier_server.protocol.http import Request, Response
from modelpier_server.records import Recorder
from modelpier_server.scheduler.servable import Servable
from modelpier_server.telemetry import Failure
from modelpier_server.transport import Extras, HttpLimits
from modelpier_server.transport.connection import SLICE
from support import onnx_models
from support.serving import Client, Running, gated, request_bytes, running, servable, tensor, until

GOOD = json.dumps({"inputs": [tensor([1, 2, 3])]}).encode()
INFER = "/v2/models/m/infer"


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(servable(onnx_models.identity(), tmp_path)) as state:
        yield state


@pytest.fixture
async def client(state: Running) -> Client:
    return await state.client()


async def test_a_connection_serves_many_requests(client: Client) -> None:
    for _ in range(3):
        answer = await client.request("POST", INFER, GOOD)
        assert answer.status == 200
        assert "connection" not in answer.headers
        assert answer.headers["date"].endswith("GMT")


async def test_every_way_of_cutting_a_request_into_packets(client: Client) -> None:
    raw = request_bytes("POST", INFER, GOOD, {"Content-Type": "application/json"})
    for cut in range(1, len(raw), 7):
        await client.send(raw[:cut])
        await asyncio.sleep(0)
        await client.send(raw[cut:])
        assert (await client.answer()).status == 200


async def test_chunked_bodies(client: Client) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(GOOD[i : i + 9]), GOOD[i : i + 9]) for i in range(0, len(GOOD), 9))
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    await client.send(head + chunks + b"0\r\nSome-Trailer: x\r\n\r\n")
    assert (await client.answer()).status == 200


async def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    """Some answers are there at once, others only after a run."""
    requests = []
    for index in range(40):
        body = json.dumps({"id": str(index), "inputs": [tensor([1, 2, 3])]}).encode()
        requests.append(request_bytes("POST", INFER, body))
        requests.append(request_bytes("GET", f"/nothing/{index}"))
    await client.send(b"".join(requests))
    for index in range(40):
        answer = await client.answer()
        assert answer.json["id"] == str(index)
        answer = await client.answer()
        assert answer.status == 404
        assert f"/nothing/{index}" in answer.error


FLOOD = 5000


def answered(state: Running) -> int:
    return sum(state.metrics.http_responses.values())


async def test_a_flood_of_pipelined_requests_keeps_nobody_waiting(state: Running, client: Client) -> None:
    """One packet holds thousands of them."""
    await client.send(request_bytes("GET", "/v2") * FLOOD)
    await until(lambda: answered(state))
    other = await state.client()
    for _ in range(5):
        before = answered(state)
        assert (await other.request("GET", "/v2/health/live")).status == 200
        assert answered(state) - before < 500
        assert state.server.unanswered <= 1 + state.server.limits.max_pipelined + SLICE // 20
    for _ in range(FLOOD):
        assert (await client.answer()).status == 200
    await until(lambda: not state.server.buffered)
    assert (await client.request("GET", "/v2")).status == 200


async def test_requests_of_a_client_that_has_left_are_not_answered(state: Running, client: Client) -> None:
    await client.send(request_bytes("GET", "/v2") * FLOOD)
    await until(lambda: answered(state))
    client.writer.transport.abort()
    await until(lambda: not state.server.connections)
    assert answered(state) < FLOOD // 2
    assert not state.server.buffered


async def test_what_waits_to_be_parsed_is_bounded(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served, limits=HttpLimits(max_pipelined=2, max_buffered_bytes=20_000)) as state:
        client = await state.client()
        await client.send(request_bytes("POST", INFER, GOOD) * 2 + request_bytes("GET", "/v2") * 2000)
        await until(lambda: served.in_flight == 2)
        session.gate.set()
        statuses: list[int] = []
        while not statuses or statuses[-1] == 200:
            statuses.append((await client.answer()).status)
        assert statuses[-1] == 503
        assert await client.closed()
        await until(lambda: not state.server.buffered)


async def test_a_slow_start_of_a_request_behind_a_flood_is_not_blamed_on_its_client(tmp_path: Path) -> None:
    """Nothing is read from it meanwhile."""
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served, limits=HttpLimits(max_pipelined=2)) as state:
        client = await state.client()
        whole = request_bytes("POST", INFER, GOOD)
        await client.send(whole * 3 + whole[:40])
        await until(lambda: served.in_flight == 2)
        (connection,) = state.server.connections
        connection.since -= 1000
        connection.check(state.server.now)
        session.gate.set()
        for _ in range(3):
            assert (await client.answer()).status == 200
        await until(lambda: connection._reading)
        connection.check(state.server.now)
        await client.send(whole[40:])
        assert (await client.answer()).status == 200


async def test_garbage_behind_a_good_request(client: Client) -> None:
    await client.send(request_bytes("POST", INFER, GOOD) + b"\x00\x01 garbage\r\n\r\n")
    assert (await client.answer()).status == 200
    refused = await client.answer()
    assert refused.status in {400, 501}
    assert refused.headers["connection"] == "close"
    assert await client.closed()


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3", "0\r\n\r\n"),
        ("Content-Length: 3\r\nContent-Length: 4", "abcd"),
        ("Content-Length: 3\r\nContent-Length: 3", "abc"),
        ("Content-Length: 3, 3", "abc"),
        ("Content-Length: +3", "abc"),
        ("Content-Length: -3", "abc"),
        ("Content-Length: 0x3", "abc"),
        ("Content-Length: ", "abc"),
        ("Content-Length: 99999999999999999999999", "abc"),
        ("Transfer-Encoding: xchunked", "0\r\n\r\n"),
        ("Transfer-Encoding: identity", "abc"),
        ("Transfer-Encoding: chunked, gzip", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ("Transfer-Encoding : chunked", "0\r\n\r\n"),
        ("Transfer-Encoding:\x0bchunked", "0\r\n\r\n"),
        ("X: a\r\n folded", ""),
        ("X: a\nContent-Length: 3", "abc"),
        ("X: a\rContent-Length: 3", "abc"),
        ("X: a\0b", ""),
        ("Host: other", ""),
        ("Transfer-Encoding: chunked", "zz\r\nabc\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "-3\r\nabc\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "ffffffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "3\nabc\r\n0\r\n\r\n"),
    ],
)
async def test_what_smuggles_is_refused(client: Client, fields: str, body: str) -> None:
    """One answer, 400, and the connection ends: a second request hidden in the first is never seen."""
    hidden = "GET /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n"
    await client.send(f"POST {INFER} HTTP/1.1\r\nHost: t\r\n{fields}\r\n\r\n{body}{hidden}".encode("latin-1"))
    answer = await client.answer()
    assert answer.status == 400
    assert answer.error
    assert answer.headers["connection"] == "close"
    assert await client.closed()


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /v2 HTTP/1.1\r\n\r\n", 400),
        (b"FROB /v2 HTTP/1.1\r\nHost: t\r\n\r\n", 501),
        (b"GET /v2 HTTP/1.2\r\nHost: t\r\n\r\n", 400),
        (b"GET /v2\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: t\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 501),
        (b"GET /\xff HTTP/1.1\r\nHost: t\r\n\r\n", 400),
        (b"POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\nExpect: tea\r\nContent-Length: 3\r\n\r\n", 417),
        (b"GET /v2 HTTP/1.1\r\nHost: t\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", 431),
        (b"".join([b"GET /v2 HTTP/1.1\r\nHost: t\r\n", *(b"X%d: y\r\n" % i for i in range(200)), b"\r\n"]), 431),
        (b"GET /" + b"a" * 100_000, 431),
        (b"GET /v2 HTTP/1.1\r\nHost: t\r\nX: " + b"a" * 100_000, 431),
    ],
)
async def test_what_is_no_http(client: Client, raw: bytes, status: int) -> None:
    await client.send(raw)
    answer = await client.answer()
    assert answer.status == status
    assert answer.error
    assert await client.closed()


async def test_expect_100_continue(client: Client) -> None:
    head = request_bytes("POST", INFER, b"", {"Expect": "100-continue", "Content-Length": len(GOOD)})
    await client.send(head)
    assert (await client.answer()).status == 100
    await client.send(GOOD)
    assert (await client.answer()).status == 200


async def test_expect_100_continue_of_too_much_sends_no_body(client: Client) -> None:
    await client.send(request_bytes("POST", INFER, b"", {"Expect": "100-continue", "Content-Length": 1 << 40}))
    assert (await client.answer()).status == 413


async def test_large_bodies_for_nobody_are_refused_before_they_are_read(client: Client) -> None:
    await client.send(request_bytes("POST", "/v2/models/unknown/infer", b"", {"Content-Length": 50_000_000}))
    answer = await client.answer()
    assert answer.status == 404
    assert await client.closed()


async def test_head_has_no_body(client: Client) -> None:
    get = await client.request("GET", "/v2")
    head = await client.request("HEAD", "/v2")
    assert head.status == 200
    assert head.headers["content-length"] == get.headers["content-length"]
    assert (await client.request("GET", "/v2")).status == 200


async def test_other_methods_are_told_which_are_allowed(client: Client) -> None:
    answer = await client.request("GET", INFER)
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"
    answer = await client.request("POST", "/v2", b"{}")
    assert answer.headers["allow"] == "GET, HEAD"


async def test_http_1_0(client: Client) -> None:
    await client.send(b"GET /v2/health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    answer = await client.answer()
    assert answer.headers["connection"] == "keep-alive"
    await client.send(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    answer = await client.answer()
    assert answer.headers["connection"] == "close"
    assert await client.closed()


async def test_connection_close_is_honoured(client: Client) -> None:
    answer = await client.request("POST", INFER, GOOD, {"Connection": "close"})
    assert answer.status == 200
    assert answer.headers["connection"] == "close"
    assert await client.closed()


async def test_upgrades_are_ignored(client: Client) -> None:
    answer = await client.request("GET", "/v2/health/live", b"", {"Connection": "Upgrade", "Upgrade": "h2c"})
    assert answer.status == 200
    assert await client.closed()


async def test_an_upgrade_with_a_body_is_not_half_read(client: Client) -> None:
    answer = await client.request("POST", INFER, GOOD, {"Connection": "Upgrade", "Upgrade": "h2c"})
    assert answer.status == 400
    assert "upgrade" in answer.error.lower()
    assert await client.closed()


async def test_paths_are_decoded_and_queries_read(client: Client) -> None:
    assert (await client.request("GET", "/v2/models/%6d")).status == 200
    assert (await client.request("GET", "/v2/models/m?x=1&y")).status == 200
    assert (await client.request("GET", "http://t/v2/models/m")).status == 200
    assert (await client.request("GET", "/v2/models/m%2Finfer")).status == 404
    assert (await client.request("GET", "/v2/models//ready")).status == 404


# ------------------------------------------------------------------------------------------ limits of time and number
SHORT = HttpLimits(header_timeout=0.2, body_grace=0.2, body_rate=1_000_000, idle_timeout=0.2, write_timeout=0.2)


@pytest.mark.parametrize(
    "raw", [b"GET /v2 HT", b"GET /v2 HTTP/1.1\r\nX: y\r\n", request_bytes("POST", INFER, b"", {"Content-Length": 9000})]
)
async def test_slow_clients_are_cut_off(tmp_path: Path, raw: bytes) -> None:
    async with running(limits=SHORT) as state:
        client = await state.client()
        await client.send(raw)
        assert (await client.answer()).status in {404, 408}
        assert await client.closed()


async def test_idle_connections_are_closed(tmp_path: Path) -> None:
    async with running(limits=SHORT) as state:
        client = await state.client()
        assert (await client.request("GET", "/v2/health/live")).status == 200
        start = time.monotonic()
        assert await client.closed()
        assert time.monotonic() - start < 5


async def test_too_many_connections(tmp_path: Path) -> None:
    async with running(limits=HttpLimits(max_connections=2)) as state:
        first, second = await state.client(), await state.client()
        assert (await first.request("GET", "/v2/health/live")).status == 200
        assert (await second.request("GET", "/v2/health/live")).status == 200
        third = await state.client()
        answer = await third.answer()
        assert answer.status == 503
        assert await third.closed()
        first.close()
        await until(lambda: len(state.server.connections) < 2 + 1)
        third.close()
        await until(lambda: len(state.server.connections) == 1)
        fourth = await state.client()
        assert (await fourth.request("GET", "/v2/health/live")).status == 200


async def test_all_bodies_together_are_bounded(tmp_path: Path) -> None:
    limits = HttpLimits(max_buffered_bytes=100_000)
    async with running(servable(onnx_models.identity(), tmp_path), limits=limits) as state:
        clients = [await state.client() for _ in range(3)]
        for client in clients[:2]:
            await client.send(request_bytes("POST", INFER, b"", {"Content-Length": 60_000}) + b" " * 45_000)
        await until(lambda: state.server.buffered == 90_000)
        await clients[2].send(request_bytes("POST", INFER, b"", {"Content-Length": 60_000}) + b" " * 45_000)
        assert (await clients[2].answer()).status == 503
        for client in clients:
            client.close()
        await until(lambda: state.server.buffered == 0)


async def test_inflated_bodies_count(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served, limits=HttpLimits(max_buffered_bytes=8_000_000)) as state:
        bombs = gzip.compress(GOOD + b" " * 3_000_000)
        assert len(bombs) < 10_000
        first, *others = [await state.client() for _ in range(4)]
        await first.send(request_bytes("POST", INFER, bombs, {"Content-Encoding": "gzip"}))
        await until(lambda: served.in_flight == 1)
        assert state.server.buffered == len(GOOD) + 3_000_000
        await others[0].send(request_bytes("POST", INFER, bombs, {"Content-Encoding": "gzip"}))
        await until(lambda: served.in_flight == 2)
        answer = await others[1].request("POST", INFER, bombs, {"Content-Encoding": "gzip"})
        assert answer.status == 503
        assert (await others[1].request("GET", "/v2/health/live")).status == 200
        session.gate.set()
        assert (await first.answer()).status == (await others[0].answer()).status == 200
        await until(lambda: state.server.buffered == 0)
        assert (await others[1].request("POST", INFER, bombs, {"Content-Encoding": "gzip"})).status == 200


def _grew(served: Servable, before: int) -> bool:
    return served.in_flight > before


async def test_small_bodies_count(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served, limits=HttpLimits(max_buffered_bytes=20_000)) as state:
        body = GOOD.ljust(9000)
        clients = [await state.client() for _ in range(3)]
        for client in clients[:2]:
            before = served.in_flight
            await client.send(request_bytes("POST", INFER, body))
            await until(partial(_grew, served, before))
        assert (await clients[2].request("POST", INFER, body)).status == 503
        session.gate.set()
        for client in clients[:2]:
            assert (await client.answer()).status == 200
        assert state.server.buffered == 0


async def test_a_body_that_memory_never_allows_is_413(tmp_path: Path) -> None:
    """Whatever the model's own limit is: 503 would be tried again for ever."""
    limits = HttpLimits(max_buffered_bytes=100_000)
    async with running(servable(onnx_models.identity(), tmp_path), limits=limits) as state:
        client = await state.client()
        await client.send(request_bytes("POST", INFER, b"", {"Content-Length": 100_001}))
        answer = await client.answer()
        assert answer.status == 413
        assert "100000 bytes" in answer.error
        assert "memory" in answer.error


async def test_a_client_that_does_not_read_is_not_read_from(tmp_path: Path) -> None:
    """Answers pile up to the high-water mark; then nothing more is read, and at last the client is cut off."""
    limits = HttpLimits(write_timeout=0.5)
    async with running(servable(onnx_models.identity(shape=("n", 100_000)), tmp_path), limits=limits) as state:
        client = await state.client()
        body = b"\0" * 400_000
        raw = request_bytes("POST", INFER, body, {"Inference-Header-Content-Length": 0})
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(100):
            client.writer.write(raw)
        await until(lambda: any(c.blocked is not None for c in state.server.connections))
        await until(lambda: not state.server.connections)
        assert state.metrics.http_responses[200] < 100


async def deaf(state: Running, bytes_of_answer: int, count: int) -> list[Client]:
    """Clients that ask and never read."""
    body = b"\0" * bytes_of_answer
    made = []
    for _ in range(count):
        client = await state.client()
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        client.writer.write(request_bytes("POST", INFER, body, {"Inference-Header-Content-Length": 0}))
        made.append(client)
    return made


async def test_answers_that_nobody_takes_are_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each client may be as slow as it likes; together they may not take the memory of others."""
    limits = HttpLimits(max_buffered_bytes=96 << 20)
    async with running(servable(onnx_models.identity(shape=("n", 4 << 20)), tmp_path), limits=limits) as state:
        clients = await deaf(state, 16 << 20, 6)
        await until(lambda: sum(c.unanswered for c in state.server.connections) == 0 and state.server.owed)
        await until(lambda: state.server.owed <= limits.max_owed_bytes)
        await until(lambda: len(state.server.connections) < 6)
        assert 1 <= len(state.server.connections) <= 4
        assert "does not take its answers" in caplog.text
        other = await state.client()
        assert (await other.request("GET", "/v2/health/live")).status == 200
        for client in clients:
            client.writer.transport.abort()
        await until(lambda: state.server.owed == 0)


async def test_who_takes_an_answer_slowly_but_steadily_gets_all_of_it(tmp_path: Path) -> None:
    async with running(servable(onnx_models.identity(shape=("n", 4 << 20)), tmp_path)) as state:
        (client,) = await deaf(state, 16 << 20, 1)
        (connection,) = state.server.connections
        await until(lambda: connection.owed > 8 << 20)
        limits = state.server.limits
        for _ in range(3):
            before = connection.owed
            client.reader._transport.resume_reading()  # type: ignore[attr-defined]
            await client.reader.readexactly(2 << 20)
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            transport = connection._transport
            assert transport is not None
            await until(lambda: transport.get_write_buffer_size() < before - (1 << 20))  # noqa: B023
            assert connection.blocked is not None
            connection.check(connection.blocked + limits.write_timeout + 1)
            assert connection.owed < before - limits.body_rate * limits.write_timeout
            assert connection in state.server.connections
        assert connection.blocked is not None
        connection.check(connection.blocked + limits.write_timeout + 1)
        await until(lambda: not state.server.connections)
        assert state.server.owed == 0


async def test_an_answer_that_memory_never_allows_says_so(tmp_path: Path) -> None:
    limits = HttpLimits(max_buffered_bytes=1 << 20)
    async with running(servable(onnx_models.identity(shape=("n", 150_000)), tmp_path), limits=limits) as state:
        client = await state.client()
        answer = await client.request("POST", INFER, b"\0" * 600_000, {"Inference-Header-Content-Length": 0})
        assert answer.status == 400
        assert "600" in answer.error
        assert "ask for fewer rows" in answer.error


async def test_answers_that_wait_for_an_earlier_one_are_counted(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(shape=("n", 50_000)), tmp_path)
    async with running(served) as state:
        client = await state.client()
        await client.send(request_bytes("POST", INFER, b"\0" * 200_000, {"Inference-Header-Content-Length": 0}))
        await client.send(request_bytes("GET", "/openapi.json"))
        await until(lambda: state.server.owed > 1000)
        session.gate.set()
        assert (await client.answer()).status == (await client.answer()).status == 200
        await until(lambda: state.server.owed == 0)


async def test_a_client_that_leaves_frees_its_place(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served) as state:
        client = await state.client()
        await client.send(request_bytes("POST", INFER, GOOD) * 8)
        await until(lambda: served.in_flight == 8 and session.runs)
        client.close()
        await until(lambda: served.in_flight == 0)
        assert served._metrics.failures[Failure.CANCELED] == 8
        session.gate.set()
        other = await state.client()
        assert (await other.request("POST", INFER, GOOD)).status == 200
    assert len(session.runs) == 2


async def test_a_failing_handler_is_a_500_and_nothing_more(
    state: Running, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: Request) -> Response:
        raise RuntimeError("secret")

    state.server.app.router.add("GET", "/broken", broken)
    answer = await client.request("GET", "/broken")
    assert answer.status == 500
    assert "secret" not in answer.error
    assert "secret" in caplog.text
    assert (await client.request("GET", "/v2")).status == 200


async def test_access_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "modelpier_server.access")
    async with running(extras=Extras(recorder=Recorder(1.0))) as state:
        client = await state.client()
        await client.request("GET", "/v2")
    (record,) = [r for r in caplog.records if r.name == "modelpier_server.access"]
    assert {"method": "GET", "path": "/v2", "status": 200}.items() <= vars(record).items()


async def test_a_client_that_left_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "modelpier_server.access")
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served, extras=Extras(recorder=Recorder(1.0))) as state:
        client = await state.client()
        await client.send(request_bytes("POST", INFER, GOOD))
        await until(lambda: served.in_flight == 1)
        client.close()
        await until(lambda: caplog.records)
        session.gate.set()
    (line,) = [vars(record) for record in caplog.records]
    assert (line["status"], line["model"], line["client"]) == (499, "m", "127.0.0.1")


# ------------------------------------------------------------------------------------------ the end
async def test_stop_answers_what_has_come(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served) as state:
        clients = [await state.client() for _ in range(4)]
        for client in clients:
            await client.send(request_bytes("POST", INFER, GOOD))
        await until(lambda: served.in_flight == 4)
        stopping = asyncio.create_task(state.server.stop(20))
        await until(lambda: state.server.closing)
        session.gate.set()
        for client in clients:
            answer = await client.answer()
            assert answer.status == 200
            assert answer.headers["connection"] == "close"
            assert await client.closed()
        assert await stopping
        with pytest.raises(ConnectionRefusedError):
            await state.client()


async def test_stop_says_when_answers_were_lost(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served) as state:
        client = await state.client()
        await client.send(request_bytes("POST", INFER, GOOD))
        await until(lambda: served.in_flight == 1)
        assert not await state.server.stop(0.1)
        session.gate.set()


async def test_requests_on_kept_connections_are_served_while_closing(state: Running, client: Client) -> None:
    assert "connection" not in (await client.request("POST", INFER, GOOD)).headers
    state.server.begin_close()
    late = await state.client()
    assert (await late.request("POST", INFER, GOOD)).status == 200
    answer = await client.request("POST", INFER, GOOD)
    assert answer.status == 200
    assert answer.headers["connection"] == "close"
    assert await client.closed()
