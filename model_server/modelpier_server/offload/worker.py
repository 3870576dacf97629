"""The helper: `python -m modelpier_server.offload.worker FD MEMORY`, started by `decoder`. One body at a time, until
the server closes its end of FD or is gone. ONNX Runtime is never imported here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np

from modelpier_server.errors import InvalidRequest, PayloadTooLarge
from modelpier_server.ipc.arena import Arena, end_of
from modelpier_server.ipc.packets import encode, receive, send
from modelpier_server.offload.messages import Asked, Model, Read, Told, Unread, Wrong
from modelpier_server.protocol.forms import Decoded, check_memory, decode
from modelpier_server.protocol.signature import Signature

_asked = msgspec.msgpack.Decoder(Asked).decode
_model = msgspec.msgpack.Decoder(Model).decode


def main() -> None:
    channel, arena = socket.socket(fileno=int(sys.argv[1])), Arena(int(sys.argv[2]))
    # The terminal's interrupt is for the server, which ends us when it has drained.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Where the container's memory is not enough, this process goes first. Source: proc(5).
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        while True:
            send(channel, encode(_answer(_asked(receive(channel)), arena)))
    except EOFError:
        os._exit(0)


def _answer(asked: Asked, arena: Arena) -> Told:
    arena.see(asked.capacity)
    found: Read | Wrong | Unread
    end = asked.size
    try:
        body = arena.view(asked.size)
        check_memory(body, asked.header_length, asked.memory)
        request = decode(asked.form, body, asked.header_length, _signature(asked.model))
        places = arena.put(list(request.inputs.items()), asked.size)
        end = max(end, end_of(places))
        found = Read(_without_inputs(request), places)
    except InvalidRequest as error:
        found = Wrong(str(error))
    except PayloadTooLarge as error:
        found = Wrong(str(error), too_large=True)
    except (MemoryError, OSError) as error:
        found = Unread(str(error))
    (place,) = arena.put([("", np.frombuffer(encode(found), np.uint8))], end)
    return Told(place, arena.capacity)


@lru_cache(maxsize=64)
def _signature(raw: bytes) -> Signature:
    model = _model(raw)
    plain = Signature.of(model.inputs, model.outputs)
    return Signature(plain.inputs, plain.outputs, model.empty_rows)


def _without_inputs(request: Decoded) -> Decoded:
    request.inputs = {}
    return request


if __name__ == "__main__":
    main()
