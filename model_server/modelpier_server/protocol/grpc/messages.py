"""Messages to bytes and back."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from modelpier_server.errors import InvalidRequest

M = TypeVar("M", bound=Message)


def parse(kind: type[M], raw: bytes) -> M:
    """Raises InvalidRequest."""
    try:
        message: M = kind.FromString(raw)
    except DecodeError as error:
        raise InvalidRequest(f"request: not a {kind.DESCRIPTOR.full_name}: {error}") from error
    return message


def dump(message: Message) -> bytes:
    raw: bytes = message.SerializeToString()
    return raw
