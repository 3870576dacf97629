"""The bytes of an answer's head. Source: RFC 9112."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE = b"connection: close\r\n"
KEEP = b"connection: keep-alive\r\n"
"""Only clients of HTTP/1.0 need to be told."""

_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def date_line() -> bytes:
    """Changes once a second: made by the server's sweep, not per answer."""
    return f"date: {formatdate(usegmt=True)}\r\n".encode()


def head(status: int, date: bytes, headers: Mapping[str, str], length: int, connection: bytes) -> bytes:
    """Everything up to the body."""
    line = _LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n".encode()
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")
    return b"%b%b%b%bcontent-length: %d\r\n\r\n" % (line, date, fields, connection, length)


def json_prefix(date: bytes) -> bytes:
    """Head of the common answer up to the value of its content-length."""
    return b"%b%bcontent-type: application/json\r\ncontent-length: " % (_LINES[200], date)
