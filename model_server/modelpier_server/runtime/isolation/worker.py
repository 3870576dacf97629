"""The process of one isolated model: `python -m modelpier_server.runtime.isolation.worker FD`, started by `session`.

FD is its end of the control socket. It loads one model, runs what comes on its channels, a thread for each, and ends at
once when the server closes the control socket or is gone, whatever its threads are doing.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path

import msgspec

from modelpier_server.errors import ModelError, OutOfMemory, ServerError
from modelpier_server.runtime.isolation.arena import Arena, end_of
from modelpier_server.runtime.isolation.messages import Failed, Load, Loaded, Ran, Refused, Run, encode, receive
from modelpier_server.runtime.onnx import load
from modelpier_server.runtime.session import Session


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    # The terminal's interrupt is for the server, which tells us when it has drained.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    session = _load(control)
    while session is not None:
        try:
            message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        except OSError:
            break
        if not message:
            break
        channel, arena = socket.socket(fileno=descriptors[0]), Arena(descriptors[1])
        threading.Thread(target=_serve, args=(session, channel, arena), daemon=True).start()
    # Threads may be within the model's code, and a graceful end of the interpreter would wait for them.
    os._exit(0)


def _load(control: socket.socket) -> Session | None:
    asked = msgspec.msgpack.decode(receive(control), type=Load)
    try:
        session = load(Path(asked.path), asked.options)
    except ModelError as error:
        control.send(encode(Refused(error.reason, str(error))))
        return None
    axes = {name: tuple(sizes) for name, sizes in session.axes.items()}
    control.send(encode(Loaded(session.inputs, session.outputs, axes, session.provider, session.instances)))
    return session


def _serve(session: Session, channel: socket.socket, arena: Arena) -> None:
    decode = msgspec.msgpack.Decoder(Run).decode
    while True:
        try:
            asked = decode(receive(channel))
            answer = encode(_run(session, asked, arena))
            channel.send(answer)
        except (EOFError, OSError):
            return


def _run(session: Session, asked: Run, arena: Arena) -> Ran | Failed:
    arena.see(asked.capacity)
    feeds = {place.name: arena.take(place) for place in asked.inputs}
    try:
        arrays = session.run(feeds, asked.outputs)
        places = arena.put(list(zip(asked.outputs, arrays, strict=True)), end_of(asked.inputs))
    except ServerError as error:
        return Failed(type(error).__name__, str(error))
    except (MemoryError, OSError) as error:
        return Failed(OutOfMemory.__name__, f"no memory for the outputs: {error}")
    return Ran(places, arena.capacity)


if __name__ == "__main__":
    main()
