"""The process of one isolated model: `python -m modelpier_server.runtime.isolation.worker FD`, started by `session`.

FD is its end of the control socket. It loads one model, runs what comes on its channels, a thread for each, and ends at
once when the server closes the control socket or is gone, whatever its threads are doing.
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
from modelpier_server.runtime.isolation.arena import Arena, end_of
from modelpier_server.runtime.isolation.messages import (
    LARGEST,
    Failed,
    Load,
    Loaded,
    Ran,
    Refused,
    Run,
    TooLarge,
    encode,
    receive,
    send,
)
from modelpier_server.runtime.onnx import load
from modelpier_server.runtime.session import Session

log = logging.getLogger(__name__)
"""Goes to the standard error, which is the server's, too."""
LONGEST_TEXT = 1000
_decode = msgspec.msgpack.Decoder(Run).decode


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    # The terminal's interrupt is for the server, which tells us when it has drained.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_server, args=(control,), daemon=True).start()
    session = _load(control)
    while session is not None and _open_channel(control, session):
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


def _open_channel(control: socket.socket, session: Session) -> bool:
    """Serves the next channel in a thread, which alone keeps it: its end must be the end of the channel. False when the
    server wants no more.
    """
    try:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
    except OSError:
        return False
    if not message:
        return False
    try:
        channel, arena = socket.socket(fileno=descriptors[0]), Arena(descriptors[1])
        threading.Thread(target=_serve, args=(session, channel, arena), daemon=True).start()
    except Exception:
        log.exception("the process of a model ends: a channel cannot be served")
        os._exit(1)
    return True


def _serve(session: Session, channel: socket.socket, arena: Arena) -> None:
    """Until the server closes the channel."""
    try:
        with channel:
            while True:
                send(channel, _answer(session, receive(channel), arena))
    except EOFError:
        return
    except Exception:
        # An edge: whoever waits for an answer on this channel gets one by the end of the process.
        log.exception("the process of a model ends: a channel cannot be served")
        os._exit(1)


def _answer(session: Session, raw: bytes, arena: Arena) -> bytes:
    """An edge: whatever goes wrong with a run is its answer."""
    try:
        return _run(session, _decode(raw), arena)
    except ServerError as error:
        return encode(Failed(type(error).__name__, str(error)))
    except (MemoryError, OSError) as error:
        return encode(Failed(OutOfMemory.__name__, f"no memory for the tensors: {error}"))
    except Exception as error:
        log.exception("a run failed unexpectedly")
        return encode(Failed(InferenceFailed.__name__, f"unexpected {type(error).__name__}: {error}"[:LONGEST_TEXT]))


def _run(session: Session, asked: Run, arena: Arena) -> bytes:
    arena.see(asked.capacity)
    feeds = {place.name: arena.take(place) for place in asked.inputs}
    arrays = session.run(feeds, asked.outputs)
    places = arena.put(list(zip(asked.outputs, arrays, strict=True)), end_of(asked.inputs))
    answer = encode(Ran(places, arena.capacity))
    if len(answer) > LARGEST:
        raise InferenceFailed("too many outputs for a process of its own: ask for fewer")
    return answer


if __name__ == "__main__":
    main()
