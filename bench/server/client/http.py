"""HTTP/1.1, one request under way per connection."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import httptools

from bench.server.client.load import ANSWERED, OVERLOADED, Load, Request
from bench.server.client.loop import Tally

_LENGTH = re.compile(rb"\ncontent-length: *(\d+)", re.IGNORECASE)
_RETRY = re.compile(rb"\nretry-after:", re.IGNORECASE)
_CLOSE = re.compile(rb"\nconnection: *close", re.IGNORECASE)
_now = time.perf_counter_ns


def request_bytes(load: Load) -> tuple[bytes, ...]:
    return tuple(_request(load, load.request, body) for body in load.request.bodies)


def _request(load: Load, request: Request, body: bytes) -> bytes:
    fields = {"host": f"{load.host}:{load.port}", "content-length": str(len(body)), **request.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{request.method} {request.path} HTTP/1.1\r\n{head}\r\n".encode() + body


class HttpDialogue:
    """An answer that comes in one piece, as nearly all do, is understood at a glance; any other by llhttp."""

    def __init__(self, requests: Sequence[bytes], tally: Tally, number: int) -> None:
        self._variant = number % len(requests)
        self._raw = requests[self._variant]
        self._tally = tally
        self._since = 0
        self._head = b""
        self._body: list[bytes] = []
        self._parser: httptools.HttpResponseParser | None = None
        self._complete = False
        self.over = False
        self.owed = 0

    def begin(self) -> bytes:
        self._since = _now()
        self.owed = 1
        return self._raw

    def received(self, data: bytes) -> bytes:
        if self._parser is None and (head := data.find(b"\r\n\r\n")) > 0:
            length = _LENGTH.search(data, 0, head)
            if length is not None and head + 4 + int(length[1]) == len(data):
                return self._done(int(data[9:12]), data[: head + 1], data, head + 4)
        return self._slowly(data)

    def _slowly(self, data: bytes) -> bytes:
        if self._parser is None:
            self._parser, self._complete, self._body = httptools.HttpResponseParser(self), False, []
            self._head = data[:4096]
        self._parser.feed_data(data)
        if not self._complete:
            return b""
        status, self._parser = self._parser.get_status_code(), None
        return self._done(status, self._head.partition(b"\r\n\r\n")[0], b"".join(self._body), 0)

    def on_body(self, body: bytes) -> None:
        """Called by httptools."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Called by httptools."""
        self._complete = True

    def _done(self, status: int, head: bytes, data: bytes, body_at: int) -> bytes:
        now = _now()
        tally = self._tally
        tally.done(status, now - self._since)
        self.owed = 0
        if status == ANSWERED:
            if now >= tally.sample_at:
                tally.keep(self._variant, data[body_at:], now)
        elif status == OVERLOADED and not _RETRY.search(head):
            tally.hasty += 1
        if _CLOSE.search(head):
            self.over = True
            return b""
        return self.begin()
