"""The server's side of an isolated model: a Session whose runs take place in a worker process.

A crash or a memory corruption of the model ends the worker and nothing else, and closing the session gives back all of
its memory. Running out of the container's memory takes the server, too, where the kubelet sets memory.oom.group. A run
costs a hop more: `bench.isolation` measures it. Why it is made like this: docs/adr/0008-isolated-models.md.
`lifecycle` loads models by `load_isolated` where their options say so, and waits on `lost`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import msgspec
import numpy.typing as npt

from modelpier_server.contract import FailureReason, Options
from modelpier_server.errors import Cancelled, InferenceFailed, InvalidRequest, ModelError, OutOfMemory
from modelpier_server.ipc.arena import Arena
from modelpier_server.ipc.packets import TooLarge, encode, pair, receive, send
from modelpier_server.runtime.isolation.messages import ERRORS, Abort, Failed, Load, Loaded, Open, Ran, Refused, Run
from modelpier_server.runtime.session import Control, Session
from modelpier_server.runtime.tensors import Axes

log = logging.getLogger(__name__)
LEAVE = 2.0
"""Seconds that a worker gets to end by itself."""
STOP_LOOK = 0.1
"""Seconds between looks at whether a load is still wanted."""
_MODULE = "modelpier_server.runtime.isolation.worker"
_answer = msgspec.msgpack.Decoder(Ran | Failed).decode


def load_isolated(path: Path, options: Options, stop: threading.Event | None = None) -> Session:
    """As `runtime.load`, in a process of its own. Blocking, for as long as the load takes or until `stop` is set.

    Raises ModelError, MODEL_CRASHED among its reasons when the load itself ends the process or none can be started.
    """
    process, ours = _start()
    try:
        send(ours, encode(Load(str(path), options)))
        _wait(ours, stop)
        answer = msgspec.msgpack.decode(receive(ours), type=Loaded | Refused)
        if isinstance(answer, Loaded):
            return IsolatedSession(process, ours, answer)
    except (EOFError, ConnectionError) as error:
        ours.close()
        text = f"the model's process {ended(process)} while it loaded the model"
        raise ModelError(FailureReason.MODEL_CRASHED, text) from error
    except OSError as error:
        _end(process, ours)
        raise _no_room(error) from error
    except BaseException:
        process.kill()  # it may be in the middle of the load
        _end(process, ours)
        raise
    _end(process, ours)
    raise ModelError(answer.reason, answer.text)


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A worker and our end of its control socket. Raises ModelError."""
    with contextlib.ExitStack() as undo:
        try:
            ours, theirs = pair()
            undo.callback(ours.close)
            with theirs:
                process = subprocess.Popen(  # noqa: S603 - our own module
                    # -P: what lies in the working directory must not take the place of our modules.
                    [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
        except OSError as error:
            raise _no_room(error) from error
        undo.pop_all()
    return process, ours


def _wait(ours: socket.socket, stop: threading.Event | None) -> None:
    """For an answer: large models load for long. Raises ModelError once `stop` is set."""
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    while not poll.poll(STOP_LOOK * 1000):
        if stop is not None and stop.is_set():
            raise ModelError(FailureReason.MODEL_CRASHED, "the model's process was ended: it is no longer wanted")


def _no_room(error: OSError) -> ModelError:
    """Too little memory, or too few processes or descriptors: the latter pass, and so are tried again like a crash."""
    reason = FailureReason.OUT_OF_MEMORY if error.errno == errno.ENOMEM else FailureReason.MODEL_CRASHED
    return ModelError(reason, f"no process for the model could be started: {error}")


class Channel:
    """One run at a time."""

    def __init__(self, control: socket.socket, index: int) -> None:
        """`index` is its name among those of `control`. Raises OSError, and then keeps nothing open."""
        self._control, self._index, self._number = control, index, 0
        with contextlib.ExitStack() as undo:
            self._socket, theirs = pair()
            undo.callback(self._socket.close)
            with theirs:
                self._arena = Arena.make()
                undo.callback(self._arena.close)
                socket.send_fds(control, [encode(Open(index))], [theirs.fileno(), self._arena.descriptor])
            undo.pop_all()

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str], control: Control | None
    ) -> list[npt.NDArray[Any]]:
        """Raises EOFError when the worker is gone."""
        try:
            places = self._arena.put(list(feeds.items()), 0)
        except OSError as error:
            raise OutOfMemory(f"no memory for the inputs: {error}") from error
        self._number += 1
        request = encode(Run(places, tuple(outputs), self._arena.capacity, self._number))
        if control is not None:
            control.begin(partial(self._abort, self._number))
        try:
            send(self._socket, request)
        except TooLarge as error:
            raise InvalidRequest(f"too many tensors for a process of its own: {error}") from error
        answer = _answer(receive(self._socket))
        if isinstance(answer, Failed):
            raise ERRORS[answer.error](answer.text)
        self._arena.see(answer.capacity)
        # The next run writes over them.
        return [self._arena.take(place).copy() for place in answer.outputs]

    def _abort(self, number: int) -> None:
        """From any thread. Never waits: a worker that reads no more has other troubles than this run."""
        with contextlib.suppress(OSError):
            self._control.send(encode(Abort(self._index, number)), socket.MSG_DONTWAIT)

    def close(self) -> None:
        self._socket.close()
        self._arena.close()


class IsolatedSession:
    """See `runtime.session.Session`."""

    caller_only = False
    on_loop = False
    joins = False

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, loaded: Loaded) -> None:
        self.inputs, self.outputs = loaded.inputs, loaded.outputs
        self.axes: Mapping[str, Axes] = loaded.axes
        self.provider, self.instances = loaded.provider, loaded.instances
        self.lost: Future[str] = Future()
        """How the process ended, once it did by itself."""
        self._process, self._control = process, control
        self._closing = False
        self._telling = threading.Lock()
        self._channels = _channels(control, max(1, loaded.instances))
        self._free: SimpleQueue[Channel | None] = SimpleQueue()
        """None: there will be none any more."""
        for channel in self._channels:
            self._free.put(channel)
        threading.Thread(target=self._watch, name=f"worker {process.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str], control: Control | None = None
    ) -> list[npt.NDArray[Any]]:
        if self._closing:
            raise InferenceFailed("the model is closed")
        channel = self._free.get()
        if channel is None:
            self._free.put(None)  # for the next one who waits
            raise InferenceFailed("the model is closed")
        try:
            if control is not None and control.aborted:
                raise Cancelled("the run was ended before it began")
            return channel.run(feeds, outputs, control)
        except EOFError as error:
            self._tell()  # whoever has seen the run fail finds the reason in `lost`
            raise InferenceFailed(f"the model's process {ended(self._process)} during the run") from error
        finally:
            self._free.put(channel)

    def prepare(self, most: int) -> None:
        """Its process runs everything in sizes as they come."""

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        _end(self._process, self._control)
        for _ in self._channels:
            try:
                # Whoever is in the middle of a run finds out that the process is gone.
                channel = self._free.get(timeout=LEAVE)
            except Empty:
                log.warning("a run did not come back from a process that has ended", extra={"pid": self.pid})
            else:
                assert channel is not None  # it is put in below
                channel.close()
        self._free.put(None)  # for runs that came before the end and have waited since

    def _watch(self) -> None:
        self._process.wait()
        self._tell()

    def _tell(self) -> None:
        text = f"the model's process {ended(self._process)}"
        with self._telling:
            if not self._closing and not self.lost.done():
                self.lost.set_result(text)


def _channels(control: socket.socket, count: int) -> list[Channel]:
    """Raises OSError, and then keeps none of them."""
    with contextlib.ExitStack() as undo:
        channels = []
        for index in range(count):
            channels.append(Channel(control, index))
            undo.callback(channels[-1].close)
        undo.pop_all()
    return channels


def ended(process: subprocess.Popen[bytes]) -> str:
    """How a process whose sockets are closed came to its end. Blocking, for a moment."""
    try:
        code = process.wait(LEAVE)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if code >= 0:
        return f"exited with status {code}"
    name = signal.Signals(-code).name
    return f"was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _end(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    """Its memory is free when this returns."""
    control.close()
    ended(process)
