"""What the two processes say to each other: MessagePack by msgspec, one message per packet of a SOCK_SEQPACKET socket.

On the control socket the server sends `Load` and gets `Loaded` or `Refused`; then it sends an `Open` for each channel,
with its socket and memory, and an `Abort` for each run that nobody waits for any longer. On a channel it sends `Run`
and gets `Ran` or `Failed`. The end of the control socket is the end of the worker.
"""

from __future__ import annotations

import msgspec

from modelpier_server.contract import FailureReason, Options, TensorSpec
from modelpier_server.errors import Cancelled, InferenceFailed, InvalidRequest, OutOfMemory, ServerError
from modelpier_server.ipc.packets import Place

ERRORS: dict[str, type[ServerError]] = {
    error.__name__: error for error in (InvalidRequest, InferenceFailed, OutOfMemory, Cancelled)
}
"""What a run may raise, by name."""


class Load(msgspec.Struct, frozen=True):
    path: str
    options: Options


class Loaded(msgspec.Struct, tag=True, frozen=True):
    """The session as it is told: see `runtime.session.Session`."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    axes: dict[str, tuple[int | str | None, ...]]
    provider: str
    instances: int


class Refused(msgspec.Struct, tag=True, frozen=True):
    reason: FailureReason
    text: str


class Open(msgspec.Struct, tag=True, frozen=True, array_like=True):
    """A channel; its socket and its memory come along."""

    channel: int


class Abort(msgspec.Struct, tag=True, frozen=True, array_like=True):
    """Nobody waits for this run any longer. It may have ended already, or be still on its way."""

    channel: int
    run: int


class Run(msgspec.Struct, frozen=True, array_like=True):
    inputs: list[Place]
    outputs: tuple[str, ...]
    capacity: int
    """Of the arena, as the sender left it."""
    number: int
    """Grows with every run of the channel, from 1."""


class Ran(msgspec.Struct, tag=True, frozen=True, array_like=True):
    outputs: list[Place]
    capacity: int


class Failed(msgspec.Struct, tag=True, frozen=True, array_like=True):
    error: str
    """Of ERRORS."""
    text: str
