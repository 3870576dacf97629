"""The server's side of the helper. `transport` asks it for bodies beyond LARGE bytes of JSON; `process` makes it, and
ends it after the drain.

The helper is started at the first such body, in the thread that waits for it: bodies are decoded one after the other,
and a bounded number waits. Where no helper can be had, bodies are decoded here; what ended several of them is not.
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
from dataclasses import dataclass

import msgspec

from modelpier_server.contract import TensorSpec
from modelpier_server.errors import InvalidRequest, PayloadTooLarge, QueueFull, Unavailable
from modelpier_server.ipc.arena import Arena
from modelpier_server.ipc.packets import TooLarge, encode, pair, receive, send
from modelpier_server.offload.messages import Asked, Model, Read, Told, Unread, Wrong
from modelpier_server.protocol.forms import Decoded, Form, check_memory, decode
from modelpier_server.protocol.http import Body
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


@dataclass(frozen=True, slots=True)
class Large:
    """A body, and what is known about it."""

    form: Form
    body: Body
    header_length: int | None
    """Bytes of its JSON part; None: all of it."""
    signature: Signature
    memory: int
    """Bytes that the JSON may take while it is decoded."""

    def decode(self) -> Decoded:
        """In this process. Raises InvalidRequest, PayloadTooLarge."""
        check_memory(self.body, self.header_length, self.memory)
        return decode(self.form, self.body, self.header_length, self.signature)


def is_large(body: Body, header_length: int | None) -> bool:
    return len(body) > LARGE and (header_length is None or header_length > LARGE)


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

    def decode(self, large: Large) -> Decoded:
        """Raises InvalidRequest, PayloadTooLarge; Unavailable when it has no memory for it, EOFError when it is gone;
        OSError, TooLarge.
        """
        self._arena.put_bytes(large.body)
        signature = large.signature
        model = Model(_specs(signature.inputs), _specs(signature.outputs), signature.empty_rows)
        size, capacity = len(large.body), self._arena.capacity
        asked = Asked(large.form, size, large.header_length, large.memory, encode(model), capacity)
        send(self._socket, encode(asked))
        told = _told(receive(self._socket))
        self._arena.see(told.capacity)
        found = _found(self._arena.take(told.place).tobytes())
        if isinstance(found, Read):
            request = found.request
            request.inputs = {place.name: self._arena.take(place).copy() for place in found.inputs}
        if self._arena.capacity > KEPT:
            self._arena.shrink()
        if isinstance(found, Unread):
            raise Unavailable(f"there is no memory for a large body now ({found.text}); try again later")
        if isinstance(found, Wrong):
            raise (PayloadTooLarge if found.too_large else InvalidRequest)(found.text)
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

    async def decode(self, large: Large) -> Decoded:
        """As `Large.decode`. Raises also QueueFull, and Unavailable when the helper ends in the middle."""
        if self._waiting >= MOST_WAITING:
            raise QueueFull(f"{self._waiting} large bodies wait to be decoded already; try again later")
        self._waiting += 1
        try:
            request = await asyncio.get_running_loop().run_in_executor(self._thread, self._decode, large)
        finally:
            self._waiting -= 1
        return request if request is not None else large.decode()

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
    def _decode(self, large: Large) -> Decoded | None:
        """None: it is to be decoded by the server itself."""
        helper = self._get()
        if helper is None:
            return None
        try:
            return helper.decode(large)
        except TooLarge:
            return None
        except (EOFError, TimeoutError) as error:
            self._drop(helper)
            raise Unavailable("the process that decodes large bodies has ended; try again") from error
        except OSError as error:
            self._drop(helper)
            raise Unavailable(f"there is no memory for a large body now ({error}); try again later") from error

    def _get(self) -> Helper | None:
        with self._closing:
            if self._helper is not None or self._closed:
                return self._helper
            now = time.monotonic()
            if len(self._starts) == STARTS and now - self._starts[0] < WINDOW:
                # Nobody knows what ended them: whatever it was must not come to the server itself.
                left = self._starts[0] + WINDOW - now
                raise Unavailable("the process that decodes large bodies has ended too often; try again later", left)
            try:
                self._helper = Helper()
                self._starts.append(now)
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
