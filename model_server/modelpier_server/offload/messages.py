"""What server and helper say to each other: an `Asked`, and then a `Told`. The body lies at the start of the memory
that both see, what was read of it behind it: packets stay small, whatever names and texts a client has made up.
"""

from __future__ import annotations

import msgspec

from modelpier_server.contract import TensorSpec
from modelpier_server.ipc.packets import Place
from modelpier_server.protocol.forms import Decoded, Form


class Model(msgspec.Struct, frozen=True, array_like=True):
    """Of a `Signature`."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    empty_rows: bool


class Asked(msgspec.Struct, frozen=True, array_like=True):
    form: Form
    size: int
    """Of the body."""
    header_length: int | None
    memory: int
    """Bytes that the JSON may take while it is decoded."""
    model: bytes
    """A `Model`, encoded: it is the same for many."""
    capacity: int


class Told(msgspec.Struct, frozen=True, array_like=True):
    """Where a `Read` or a `Wrong` lies."""

    place: Place
    capacity: int


class Read(msgspec.Struct, tag=True, frozen=True, array_like=True):
    request: Decoded
    """Without its inputs."""
    inputs: list[Place]


class Wrong(msgspec.Struct, tag=True, frozen=True, array_like=True):
    """The request is: the text of an InvalidRequest, or of a PayloadTooLarge."""

    text: str
    too_large: bool = False


class Unread(msgspec.Struct, tag=True, frozen=True, array_like=True):
    """There was no memory for it."""

    text: str
