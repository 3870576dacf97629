"""Packets between this server's processes, one message each, over SOCK_SEQPACKET sockets."""

from __future__ import annotations

import socket

import msgspec

LARGEST = 1 << 17
"""Bytes of a message, below the default send buffer of Linux, 212,992: enough for a thousand tensors."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a tensor lies in an arena. `size` in bytes; BYTES as in the binary tensor extension."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    offset: int
    size: int


encode = msgspec.msgpack.Encoder().encode


class TooLarge(Exception):  # noqa: N818 - says what happened
    """A message that no packet holds: that of a model with very many tensors."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends through which a message of LARGEST goes, whatever the machine's default is. Raises OSError."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LARGEST)
    return ends


def send(target: socket.socket, raw: bytes) -> None:
    """An encoded message. Raises TooLarge; EOFError when the other side is gone."""
    if len(raw) > LARGEST:
        raise TooLarge(f"the message about its tensors has {len(raw)} bytes, and {LARGEST} at most can be sent")
    try:
        target.send(raw)
    except ConnectionError as error:
        raise EOFError from error


def receive(source: socket.socket) -> bytes:
    """A message. Raises TooLarge; EOFError when the other side is gone."""
    try:
        raw, _, flags, _ = source.recvmsg(LARGEST)
    except ConnectionError as error:
        raise EOFError from error
    if flags & socket.MSG_TRUNC:
        raise TooLarge(f"a message of more than {LARGEST} bytes came")
    if not raw:
        raise EOFError
    return raw
