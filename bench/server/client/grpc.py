"""gRPC over plain HTTP/2, just as much of it as a load generator needs.

The server is told to keep no table of headers (SETTINGS_HEADER_TABLE_SIZE 0), so that every answer's headers stand for
themselves. How an answer ends when all is well is learned from the first one: gRPC's C core, which all contestants
have inside, writes `grpc-status: 0` in the same bytes every time, and whatever ends otherwise counts as a failure.
Sources: RFC 9113, RFC 7541, gRPC's "gRPC over HTTP2".
"""

from __future__ import annotations

import struct
import time

from bench.server.client.load import ANSWERED, Load
from bench.server.client.loop import Tally

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
LARGEST_WINDOW = 2**31 - 1
FRAME = 1 << 14
STREAMS = 4
"""Calls under way on one connection."""
FAILED = 500
OK = b"grpc-status\x010"
"""As a literal of HPACK: a length and the value."""
_now = time.perf_counter_ns


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header that neither side remembers, without Huffman's code. Both shorter than 127."""
    return b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


def headers(load: Load) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": load.request.path,
        ":authority": f"{load.host}:{load.port}",
        "te": "trailers",
        "content-type": "application/grpc",
        **load.request.headers,
    }
    return b"".join(literal(name, value) for name, value in fields.items())


class GrpcDialogue:
    """STREAMS calls on one connection, or fewer."""

    def __init__(self, load: Load, streams: int, tally: Tally, number: int) -> None:
        self._headers = headers(load)
        self._variant = number % len(load.request.bodies)
        body = load.request.bodies[self._variant]
        self._message = b"\x00" + struct.pack(">I", len(body)) + body
        self._tally = tally
        self._streams = streams
        self._next = 1
        self._since: dict[int, int] = {}
        self._rest = b""
        self._leaving = False
        self._window = 65535
        """Bytes that the server takes on the whole connection, and on a new stream."""
        self._each = 65535
        self._waiting: list[tuple[int, bytes]] = []
        """Rests of messages for which there was no window."""
        self._allowed: dict[int, int] = {}

    def begin(self) -> bytes:
        settings = struct.pack(">HIHI", 1, 0, 4, LARGEST_WINDOW)
        grown = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - 65535))
        calls = b"".join(self._call() for _ in range(self._streams))
        return PREFACE + frame(SETTINGS, 0, 0, settings) + grown + calls

    @property
    def owed(self) -> int:
        return len(self._since)

    @property
    def over(self) -> bool:
        return self._leaving and not self._since

    def received(self, data: bytes) -> bytes:
        data = self._rest + data if self._rest else data
        answer, at, end = [], 0, len(data)
        while end - at >= 9:
            size = int.from_bytes(data[at : at + 3], "big")
            if end - at < 9 + size:
                break
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            if reply := self._frame(data[at + 3], data[at + 4], stream, data[at + 9 : at + 9 + size]):
                answer.append(reply)
            at += 9 + size
        self._rest = data[at:]
        return b"".join(answer)

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:  # noqa: PLR0911
        if kind == HEADERS:
            return self._ended(stream, ANSWERED if OK in payload else FAILED) if flags & END_STREAM else b""
        if kind == DATA:
            if (now := _now()) >= self._tally.sample_at:
                self._sample(payload, now)
            # The window was made as large as can be; it is given back before it is used up.
            return frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload))) if len(payload) > 1 << 10 else b""
        if kind == WINDOW_UPDATE:
            return self._grown(stream, int.from_bytes(payload, "big"))
        if kind == SETTINGS:
            return b"" if flags & ACK else self._settings(payload)
        if kind == PING:
            return b"" if flags & ACK else frame(PING, ACK, 0, payload)
        if kind == RST_STREAM:
            return self._ended(stream, FAILED)
        if kind == GOAWAY:
            self._leaving = True
        return b""

    def _sample(self, payload: bytes, now: int) -> None:
        """A message that comes in one piece, as small ones do."""
        if len(payload) > 5 and int.from_bytes(payload[1:5], "big") == len(payload) - 5:
            self._tally.keep(self._variant, payload[5:], now)

    def _settings(self, payload: bytes) -> bytes:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == 4:  # SETTINGS_INITIAL_WINDOW_SIZE, also of streams that are open
                for stream in self._allowed:
                    self._allowed[stream] += value - self._each
                self._each = value
        return frame(SETTINGS, ACK, 0) + self._go_on()

    def _ended(self, stream: int, status: int) -> bytes:
        since = self._since.pop(stream, None)
        self._allowed.pop(stream, None)
        if since is None:
            return b""
        self._tally.done(status, _now() - since)
        return b"" if self._leaving else self._call()

    def _call(self) -> bytes:
        stream, self._next = self._next, self._next + 2
        self._since[stream] = _now()
        self._allowed[stream] = self._each
        start = frame(HEADERS, END_HEADERS, stream, self._headers)
        if len(self._message) <= min(self._window, self._each, FRAME) and not self._waiting:
            self._spend(stream, len(self._message))
            return start + frame(DATA, END_STREAM, stream, self._message)
        self._waiting.append((stream, self._message))
        return start + self._go_on()

    def _spend(self, stream: int, size: int) -> None:
        self._window -= size
        self._allowed[stream] -= size

    def _grown(self, stream: int, by: int) -> bytes:
        if stream == 0:
            self._window += by
        elif stream in self._allowed:
            self._allowed[stream] += by
        return self._go_on() if self._waiting else b""

    def _go_on(self) -> bytes:
        """Sends of what waits as much as the windows allow."""
        sent, still = [], []
        for stream, message in self._waiting:
            rest = message
            while rest and (size := min(len(rest), FRAME, self._window, self._allowed.get(stream, 0))) > 0:
                self._spend(stream, size)
                part, rest = rest[:size], rest[size:]
                sent.append(frame(DATA, 0 if rest else END_STREAM, stream, part))
            if rest and stream in self._allowed:
                still.append((stream, rest))
        self._waiting = still
        return b"".join(sent)
