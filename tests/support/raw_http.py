"""Bytes on a socket and what comes back: answers counted, statuses read, and whether the connection is still of use."""

from __future__ import annotations

import socket
from dataclasses import dataclass

SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: t\r\n\r\n"


@dataclass(frozen=True)
class Outcome:
    """`statuses` of the answers before the end; `kept`: a request sent afterwards is answered as itself."""

    statuses: tuple[int, ...]
    kept: bool


class Answers:
    """Reads answers off a socket, framed by their Content-Length, and nothing but answers."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._buffer = b""

    def next(self, *, head: bool = False) -> tuple[int, bytes] | None:
        """Status and body; None at the end of the connection. `head`: to a HEAD, so without a body."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._fill():
                return None
        start, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = start.split(b"\r\n")
        version, status, _ = lines[0].split(b" ", 2)
        assert version == b"HTTP/1.1", lines[0]
        lengths = [line.split(b":", 1)[1] for line in lines if line.lower().startswith(b"content-length:")]
        if int(status) < 200:
            assert not lengths
            return int(status), b""
        assert len(lengths) == 1, start
        length = 0 if head else int(lengths[0])
        while len(self._buffer) < length:
            assert self._fill(), "the connection ended within an answer"
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return int(status), body

    def _fill(self) -> bool:
        try:
            data = self._client.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        assert data or not self._buffer, f"the connection ended within an answer: {self._buffer[:200]!r}"
        self._buffer += data
        return bool(data)


def connect(port: int, seconds: float = 20) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=seconds)


def outcome(port: int, raw: bytes) -> Outcome:
    """Of all of `raw` at once, followed by one good request."""
    with connect(port) as client:
        try:
            client.sendall(raw)
            client.sendall(SENTINEL)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused early: what has come back is read all the same
        answers = Answers(client)
        statuses: list[int] = []
        while (answer := answers.next()) is not None:
            if answer[0] == 404 and b"/sentinel" in answer[1]:
                return Outcome(tuple(statuses), kept=True)
            statuses.append(answer[0])
        return Outcome(tuple(statuses), kept=False)
