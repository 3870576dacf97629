"""The server's side of the helper. `transport.infer` asks it for bodies beyond LARGE bytes of JSON; `process` makes it,
and ends it after the drain.

The helper is started at the first such body, in the thread that waits for it: bodies are decoded one after the other,
and a bounded number waits. Where no helper can be had, and after it has ended too often, bodies are decoded here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import msgspec

from modelpier_server.contract import TensorSpec
from modelpier_server.errors import InvalidRequest, QueueFull, Unavailable
from modelpier_server.ipc.arena import Arena
from modelpier_server.ipc.packets import TooLarge, encode, pair, receive, send
from modelpier_server.offload.messages import Asked, Model, Read, Told, Unread, Wrong
from modelpier_server.protocol.http import Body
from modelpier_server.protocol.infer_request import InferRequest, decode
from modelpier_server.protocol.signature import Signature, Slot

LARGE = 1 << 18
"""Bytes of JSON that take some milliseconds."""
MOST_WAITING = 64
LONGEST = 60.0
"""Seconds that the helper may take for one body."""
STARTS, WINDOW = 5, 60.0
"""So many helpers are started within so many seconds."""
KEPT = 1 << 23
"""Bytes of shared memory that stay between bodies."""
_MODULE = "modelpier_server.offload.worker"
_told = msgspec.msgpack.Decoder(Told).decode
_found = msgspec.msgpack.Decoder(Read | Wrong | Unread).decode

log = logging.getLogger(__name__)


class Helper:
    """A process and its memory. Raises OSError when it cannot be had."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as undo:
            self._socket, theirs = pair()
            undo.callback(self._socket.close)
            with theirs:
                self._arena = Arena.make()
                undo.callback(self._arena.close)
                descriptors = (theirs.fileno(), self._arena.descriptor)
                self.process = subprocess.Popen(  # noqa: S603 - our own module
                    # -P: what lies in the working directory must not take the place of our modules.
                    [sys.executable, "-P", "-m", _MODULE, *map(str, descriptors)],
                    pass_fds=descriptors,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            undo.pop_all()
        self._socket.settimeout(LONGEST)

    def decode(self, body: Body, header_length: int | None, signature: Signature) -> InferRequest | None:
        """None: it has no memory for it. Raises InvalidRequest, OSError, TooLarge; EOFError when it is gone."""
        self._arena.put_bytes(body)
        model = Model(_specs(signature.inputs), _specs(signature.outputs), signature.empty_rows)
        send(self._socket, encode(Asked(len(body), header_length, encode(model), self._arena.capacity)))
        told = _told(receive(self._socket))
        self._arena.see(told.capacity)
        found = _found(self._arena.take(told.place).tobytes())
        request = None
        if isinstance(found, Read):
            request = found.request
            request.inputs = {place.name: self._arena.take(place).copy() for place in found.inputs}
        if self._arena.capacity > KEPT:
            self._arena.shrink()
        if isinstance(found, Wrong):
            raise InvalidRequest(found.text)
        return request

    def end(self) -> None:
        """At once, from any thread: who waits for it learns that it is gone."""
        self.process.kill()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._socket.close()
        self._arena.close()


class Decoder:
    """Used on the event loop; what begins with an underscore and says so is of its thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "large-bodies")
        self._waiting = 0
        self._helper: Helper | None = None
        self._starts: deque[float] = deque(maxlen=STARTS)
        self._closing = threading.Lock()
        self._closed = False

    async def decode(self, body: Body, header_length: int | None, signature: Signature) -> InferRequest:
        """As `infer_request.decode`. Raises also QueueFull, and Unavailable when the helper ends in the middle."""
        if self._waiting >= MOST_WAITING:
            raise QueueFull(f"{self._waiting} large bodies wait to be decoded already; try again later")
        self._waiting += 1
        try:
            work = (body, header_length, signature)
            request = await asyncio.get_running_loop().run_in_executor(self._thread, self._decode, *work)
        finally:
            self._waiting -= 1
        return request if request is not None else decode(body, header_length, signature)

    @property
    def pid(self) -> int | None:
        """Of the helper, once there is one."""
        return self._helper.process.pid if self._helper is not None else None

    def close(self) -> None:
        with self._closing:
            self._closed = True
            if self._helper is not None:
                self._helper.end()
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._helper is not None:
            self._helper.close()

    # ------------------------------------------------------------------------------------------ in its thread
    def _decode(self, body: Body, header_length: int | None, signature: Signature) -> InferRequest | None:
        """None: it is to be decoded by the server itself."""
        helper = self._get()
        if helper is None:
            return None
        try:
            return helper.decode(body, header_length, signature)
        except TooLarge:
            return None
        except (EOFError, TimeoutError) as error:
            self._drop(helper)
            raise Unavailable("the process that decodes large bodies has ended; try again") from error
        except OSError as error:
            log.warning("no memory for a large body's process", extra={"error": str(error)})
            self._drop(helper)
            return None

    def _get(self) -> Helper | None:
        with self._closing:
            if self._helper is not None or self._closed:
                return self._helper
            now = time.monotonic()
            if len(self._starts) == STARTS and now - self._starts[0] < WINDOW:
                return None
            self._starts.append(now)
            try:
                self._helper = Helper()
            except OSError as error:
                log.warning("no process for large bodies could be started", extra={"error": str(error)})
            return self._helper

    def _drop(self, helper: Helper) -> None:
        with self._closing:
            helper.close()
            self._helper = None
        log.warning("the process of large bodies has ended", extra={"status": helper.process.returncode})


def _specs(slots: Mapping[str, Slot]) -> tuple[TensorSpec, ...]:
    return tuple(slot.spec for slot in slots.values())
