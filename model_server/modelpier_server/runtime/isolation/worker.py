"""The process of one isolated model: `python -m modelpier_server.runtime.isolation.worker FD`, started by `session`.

FD is its end of the control socket. It loads one model, runs what comes on its channels, a thread for each, and ends
the runs that nobody waits for any longer. It ends at once when the server closes the control socket or is gone,
whatever its threads are doing.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path

import msgspec

from modelpier_server.contract import FailureReason
from modelpier_server.errors import InferenceFailed, ModelError, OutOfMemory, ServerError
from modelpier_server.ipc.arena import Arena, end_of
from modelpier_server.ipc.packets import LARGEST, TooLarge, encode, receive, send
from modelpier_server.runtime.isolation.messages import Abort, Failed, Load, Loaded, Open, Ran, Refused, Run
from modelpier_server.runtime.local import load
from modelpier_server.runtime.session import Control, Session

log = logging.getLogger(__name__)
"""Goes to the standard error, which is the server's, too."""
LONGEST_TEXT = 1000
_decode = msgspec.msgpack.Decoder(Run).decode
_order = msgspec.msgpack.Decoder(Open | Abort).decode
_PACKET = 64
"""Bytes of the longest order."""


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    # The terminal's interrupt is for the server, which tells us when it has drained.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_server, args=(control,), daemon=True).start()
    session = _load(control)
    runs: dict[int, Runs] = {}
    while session is not None and _obey(control, session, runs):
        pass
    # Threads may be within the model's code, and a graceful end of the interpreter would wait for them.
    os._exit(0)


def _end_with_server(control: socket.socket) -> None:
    """Also in the middle of a load, when nobody reads what comes."""
    poll = select.poll()
    poll.register(control, 0)  # the other side's end is always told
    poll.poll()
    os._exit(0)


def _load(control: socket.socket) -> Session | None:
    asked = msgspec.msgpack.decode(receive(control), type=Load)
    try:
        session = load(Path(asked.path), asked.options)
    except ModelError as error:
        send(control, encode(Refused(error.reason, str(error))))
        return None
    axes = {name: tuple(sizes) for name, sizes in session.axes.items()}
    try:
        send(control, encode(Loaded(session.inputs, session.outputs, axes, session.provider, session.instances)))
    except TooLarge as error:
        text = f"too many inputs and outputs for a process of its own: {error}; serve it without `isolated`"
        send(control, encode(Refused(FailureReason.MODEL_INVALID, text)))
        return None
    return session


class Runs:
    """Which run of a channel is under way, and how it is ended. The channel's thread begins and ends them, the main
    thread aborts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control = Control()
        self._last = 0
        self._busy = False
        self._unwanted = 0
        """The latest that was aborted before it had begun: its order came by another way, and faster."""

    def begin(self, number: int) -> Control:
        with self._lock:
            if self._control.aborted:
                self._control = Control()
            self._last, self._busy = number, True
            if self._unwanted == number:
                self._control.abort()
            return self._control

    def end(self) -> None:
        with self._lock:
            self._busy = False

    def abort(self, number: int) -> None:
        with self._lock:
            if self._busy and number == self._last:
                self._control.abort()
            elif number > self._last:
                self._unwanted = number


def _obey(control: socket.socket, session: Session, runs: dict[int, Runs]) -> bool:
    """Takes the next order. False when the server wants no more."""
    try:
        message, descriptors, _, _ = socket.recv_fds(control, _PACKET, 2)
    except OSError:
        return False
    if not message:
        return False
    try:
        order = _order(message)
        if isinstance(order, Abort):
            runs[order.channel].abort(order.run)
        else:
            runs[order.channel] = Runs()
            _open_channel(session, runs[order.channel], descriptors)
    except Exception:
        log.exception("the process of a model ends: a channel cannot be served")
        os._exit(1)
    return True


def _open_channel(session: Session, runs: Runs, descriptors: list[int]) -> None:
    """Serves it in a thread, which alone keeps it: its end must be the end of the channel."""
    channel, arena = socket.socket(fileno=descriptors[0]), Arena(descriptors[1])
    threading.Thread(target=_serve, args=(session, channel, arena, runs), daemon=True).start()


def _serve(session: Session, channel: socket.socket, arena: Arena, runs: Runs) -> None:
    """Until the server closes the channel."""
    try:
        with channel:
            while True:
                send(channel, _answer(session, receive(channel), arena, runs))
    except EOFError:
        return
    except Exception:
        # An edge: whoever waits for an answer on this channel gets one by the end of the process.
        log.exception("the process of a model ends: a channel cannot be served")
        os._exit(1)


def _answer(session: Session, raw: bytes, arena: Arena, runs: Runs) -> bytes:
    """An edge: whatever goes wrong with a run is its answer."""
    try:
        return _run(session, _decode(raw), arena, runs)
    except ServerError as error:
        return encode(Failed(type(error).__name__, str(error)))
    except (MemoryError, OSError) as error:
        return encode(Failed(OutOfMemory.__name__, f"no memory for the tensors: {error}"))
    except Exception as error:
        log.exception("a run failed unexpectedly")
        return encode(Failed(InferenceFailed.__name__, f"unexpected {type(error).__name__}: {error}"[:LONGEST_TEXT]))


def _run(session: Session, asked: Run, arena: Arena, runs: Runs) -> bytes:
    arena.see(asked.capacity)
    feeds = {place.name: arena.take(place) for place in asked.inputs}
    control = runs.begin(asked.number)
    try:
        arrays = session.run(feeds, asked.outputs, control)
    finally:
        runs.end()
    places = arena.put(list(zip(asked.outputs, arrays, strict=True)), end_of(asked.inputs))
    answer = encode(Ran(places, arena.capacity))
    if len(answer) > LARGEST:
        raise InferenceFailed("too many outputs for a process of its own: ask for fewer")
    return answer


if __name__ == "__main__":
    main()
