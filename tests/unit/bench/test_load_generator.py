"""The generator's loop against real, tiny servers in threads of this process."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count

import pytest
from bench.server.client.grpc import DATA, END_STREAM, HEADERS, PREFACE, SETTINGS, GrpcDialogue, frame, literal
from bench.server.client.http import HttpDialogue, request_bytes
from bench.server.client.load import Load, Outcome, Request, Sample
from bench.server.client.loop import Tally, run
from bench.server.histogram import Histogram

BODIES = (b"first", b"other")
Answer = Callable[[int, bytes], bytes | None]
"""Number of the request and its body to the bytes of an answer; None: hang up."""


def ok(body: bytes, *extra: str, status: str = "200 OK") -> bytes:
    lines = "".join(f"{line}\r\n" for line in extra)
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


@contextmanager
def web(answer: Answer) -> Iterator[int]:
    """An HTTP server that knows bodies of five bytes."""
    numbers = count()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline():
                while self.rfile.readline().strip():
                    pass
                raw = answer(next(numbers), self.rfile.read(5))
                if raw is None:
                    return
                self.wfile.write(raw)

    with serving(Handler) as port:
        yield port


@contextmanager
def serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    class Quiet(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            """The generator hangs up amid requests when its time is over."""

    with Quiet(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def load(port: int, concurrency: int = 2, seconds: float = 0.2) -> Load:
    return Load(port, Request("/x", BODIES, {"a": "b"}), concurrency, seconds, warm_up=0.02)


def over_http(given: Load) -> Outcome:
    said: list[str] = []
    outcome = run(given, partial(HttpDialogue, request_bytes(given)), given.concurrency, said.append)
    assert said == ["begin", "end"]
    return outcome


def test_answers_are_counted_timed_and_sampled_with_what_was_asked() -> None:
    with web(lambda _, body: ok(body)) as port:
        outcome = over_http(load(port))
    assert outcome.answered.count > 20
    assert outcome.rate == pytest.approx(outcome.answered.count / outcome.seconds)
    assert 0 < outcome.answered.percentile(0.5) < 100
    assert (outcome.other, outcome.resets) == ({}, 0)
    assert 1 < len(outcome.samples) <= 17
    assert {(sample.variant, sample.body) for sample in outcome.samples} <= set(enumerate(BODIES))


def test_each_connection_has_a_body_of_its_own() -> None:
    given = request_bytes(load(1))
    dialogues = [HttpDialogue(given, Tally(1), number) for number in range(3)]
    assert [dialogue.begin()[-5:] for dialogue in dialogues] == [b"first", b"other", b"first"]


def test_refusals_are_told_apart_and_must_say_when_to_come_again() -> None:
    polite = ok(b"", "Retry-After: 1", status="429 Too Many Requests")
    answers = (ok(b"fine!"), polite, ok(b"", status="429 Too Many Requests"), ok(b"", status="500 Oops"))
    with web(lambda number, _: answers[number % 4]) as port:
        outcome = over_http(load(port))
    assert set(outcome.other) == {429, 500}
    assert 0 < outcome.hasty < outcome.other[429]
    assert {sample.body for sample in outcome.samples} == {b"fine!"}


def test_a_connection_that_ends_amid_a_request_is_a_reset_and_opened_again() -> None:
    with web(lambda number, body: None if number % 5 == 4 else ok(body)) as port:
        outcome = over_http(load(port))
    assert outcome.resets > 0
    assert outcome.answered.count > outcome.resets


def test_a_server_that_asks_to_close_is_obeyed_without_a_reset() -> None:
    with web(lambda _, body: ok(body, "Connection: close")) as port:
        outcome = over_http(load(port))
    assert outcome.answered.count > 5
    assert outcome.resets == 0


def test_answers_in_pieces_and_chunks_are_put_together() -> None:
    tally = Tally(0)
    dialogue = HttpDialogue((b"?",), tally, 0)
    dialogue.begin()
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    sent = [dialogue.received(whole[at : at + 1]) for at in range(len(whole))]
    assert [part for part in sent if part] == [b"?"]
    assert tally.samples == [Sample(0, b"abcde")]


def test_who_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.server.client.loop.STALLED", 0.05)
    with web(lambda _, __: b"") as port, pytest.raises(TimeoutError, match="no answer"):
        over_http(load(port, seconds=30))


# ------------------------------------------------------------------------------------------ gRPC
ENDED = literal("grpc-status", "0")
FAILED = literal("grpc-status", "8")


class Unary(socketserver.StreamRequestHandler):
    """Answers each call with its own message; every seventh fails."""

    def handle(self) -> None:
        assert self.rfile.read(len(PREFACE)) == PREFACE
        self.wfile.write(frame(SETTINGS, 0, 0))
        calls = 0
        while head := self.rfile.read(9):
            payload, stream = self.rfile.read(int.from_bytes(head[:3], "big")), int.from_bytes(head[5:], "big")
            if head[3] == DATA and head[4] & END_STREAM:
                calls += 1
                end = frame(HEADERS, END_STREAM | 4, stream, FAILED if calls % 7 == 0 else ENDED)
                self.wfile.write(frame(HEADERS, 4, stream, b"") + frame(DATA, 0, stream, payload) + end)


def test_calls_over_grpc_are_counted_by_how_they_end() -> None:
    with serving(Unary) as port:
        given = load(port, concurrency=4)
        outcome = run(given, partial(GrpcDialogue, given, 2), 2, lambda _: None)
    assert outcome.answered.count > 5 * outcome.other[500] > 0
    assert {(sample.variant, sample.body) for sample in outcome.samples} <= set(enumerate(BODIES))
    assert len(outcome.samples) > 1


def test_a_message_waits_for_the_windows_that_the_server_gives() -> None:
    given = replace(load(1), request=Request("/m", (bytes(100_000),), wire="grpc"))
    dialogue = GrpcDialogue(given, 1, Tally(1), 0)

    def bytes_of_data(raw: bytes) -> int:
        found, at = 0, raw.find(PREFACE) + len(PREFACE) if PREFACE in raw else 0
        while at < len(raw):
            size = int.from_bytes(raw[at : at + 3], "big")
            found += size if raw[at + 3] == DATA else 0
            at += 9 + size
        return found

    assert bytes_of_data(dialogue.begin()) == 65535
    more = (50_000).to_bytes(4, "big")
    assert bytes_of_data(dialogue.received(frame(8, 0, 0, more))) == 0  # the stream's window is still shut
    assert bytes_of_data(dialogue.received(frame(8, 0, 1, more))) == 100_005 - 65535


# ------------------------------------------------------------------------------------------ messages
def test_loads_and_outcomes_travel() -> None:
    given = load(7)
    assert Load.decode(given.encode()) == given
    outcome = Outcome(1.5, {200: Histogram.of([1, 2])}, 3, 4, 0.5, [Sample(1, b"\x00\xff")])
    assert Outcome.decode(outcome.encode()) == outcome
