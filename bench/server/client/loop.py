"""The closed loop: every connection has what it may have under way, all the time."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Protocol

from bench.server.client.load import Load, Outcome, Sample
from bench.server.histogram import Histogram

CHUNK = 1 << 18
SAMPLES = 16
STALLED = 60.0
"""Seconds without any answer after which the run is given up."""
_now = time.perf_counter_ns

Done = Callable[[int, int], None]
"""Called with a status and the nanoseconds that its answer took."""


class Dialogue(Protocol):
    """One connection's side of a protocol: bytes in, bytes out."""

    def begin(self) -> bytes:
        """What is sent first."""

    def received(self, data: bytes) -> bytes:
        """What is to be sent next, which may be nothing. Raises ValueError for what cannot be understood."""

    @property
    def over(self) -> bool:
        """Whether the server asked to leave this connection, and nothing is owed on it any longer."""

    @property
    def owed(self) -> int:
        """Answers."""


class Tally:
    """Dialogues look at `sample_at` themselves: a call for each answer would cost. `hasty` is for that of HTTP."""

    def __init__(self, sample_every: int) -> None:
        self.latencies: defaultdict[int, list[int]] = defaultdict(list)
        self.resets = 0
        self.hasty = 0
        self.samples: list[Sample] = []
        self.sample_at = 0
        """The moment from which the next good answer is to be kept."""
        self._sample_every = sample_every

    def restart(self) -> None:
        """What was before does not count."""
        self.latencies.clear()
        self.samples.clear()
        self.resets = self.hasty = self.sample_at = 0

    def done(self, status: int, taken: int) -> None:
        self.latencies[status].append(taken)

    def keep(self, variant: int, body: bytes, now: int) -> None:
        self.samples.append(Sample(variant, body))
        self.sample_at = now + self._sample_every


Make = Callable[[Tally, int], Dialogue]
"""Called with the number of the connection."""


class Line:
    """A socket and what could not be sent yet."""

    def __init__(self, address: tuple[str, int], dialogue: Dialogue) -> None:
        self.dialogue = dialogue
        self.socket = socket.create_connection(address, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.left = memoryview(b"")

    def send(self, data: bytes | memoryview) -> None:
        sent = 0
        with contextlib.suppress(BlockingIOError):
            sent = self.socket.send(data)
        if sent != len(data):
            self.left = memoryview(data)[sent:]


class Loop:
    def __init__(self, load: Load, tally: Tally, make: Make, lines: int) -> None:
        self._address = (load.host, load.port)
        self._tally = tally
        self._make = make
        self._poll = select.epoll()
        self._lines: dict[int, Line] = {}
        self._opened = 0
        for _ in range(lines):
            self._open()

    def run(self, seconds: float) -> float:
        """Seconds that it really took. Raises TimeoutError when nobody answers."""
        start, last = time.monotonic(), time.monotonic()
        end = start + seconds
        while (now := time.monotonic()) < end:
            events = self._poll.poll(0.1)
            if events:
                last = now
            elif now - last > STALLED:
                raise TimeoutError(f"no answer in {STALLED:.0f} s")
            for number, event in events:
                self._handle(self._lines[number], event)
        return time.monotonic() - start

    def _handle(self, line: Line, event: int) -> None:
        if event & select.EPOLLOUT:
            self._flush(line)
        if event & ~select.EPOLLOUT:
            self._receive(line)

    def _receive(self, line: Line) -> None:
        try:
            data = line.socket.recv(CHUNK)
            if data:
                if answer := line.dialogue.received(data):
                    self._send(line, answer)
                if not line.dialogue.over:
                    return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._tally.resets += line.dialogue.owed
        self._close(line)
        self._open()

    def _send(self, line: Line, data: bytes) -> None:
        if line.left:
            line.left = memoryview(bytes(line.left) + data)
            return
        line.send(data)
        if line.left:
            self._poll.modify(line.socket, select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, line: Line) -> None:
        left, line.left = line.left, memoryview(b"")
        try:
            line.send(left)
        except OSError:
            return  # the next event says that the connection has ended
        if not line.left:
            self._poll.modify(line.socket, select.EPOLLIN)

    def _open(self) -> None:
        line = Line(self._address, self._make(self._tally, self._opened))
        self._opened += 1
        self._lines[line.socket.fileno()] = line
        self._poll.register(line.socket, select.EPOLLIN)
        self._send(line, line.dialogue.begin())

    def _close(self, line: Line) -> None:
        self._poll.unregister(line.socket)
        del self._lines[line.socket.fileno()]
        line.socket.close()

    def close(self) -> None:
        for line in list(self._lines.values()):
            self._close(line)
        self._poll.close()


def run(load: Load, make: Make, lines: int, say: Callable[[str], None]) -> Outcome:
    """Warms up, says "begin", measures, says "end". Answers that are under way at the end do not count."""
    tally = Tally(int(load.seconds * 1e9 / SAMPLES))
    with contextlib.closing(Loop(load, tally, make, lines)) as loop:
        loop.run(load.warm_up)
        say("begin")
        tally.restart()
        cpu = time.process_time()
        seconds = loop.run(load.seconds)
        cpu = time.process_time() - cpu
        say("end")
    found = {status: Histogram.of(values) for status, values in tally.latencies.items()}
    return Outcome(seconds, found, tally.resets, tally.hasty, cpu, tally.samples)
