"""What is noted of single requests: for their traces, and for their lines in the access log.

A port's `Recorder` begins a record per request that is sampled for either; the scheduler tells it of the run, the
transport ends it. Where neither is asked for there is no recorder, and the hot path sees a None.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from modelpier_server.telemetry import ACCESS_LOG

access = logging.getLogger(ACCESS_LOG)
Values = Mapping[str, str | int]
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LONGEST_STATE = 512
"""Of `tracestate`: W3C asks for no more to be passed on."""
_LONGEST_PATH = 200


@dataclass(frozen=True, slots=True)
class Parent:
    """The client's span, as `traceparent` and `tracestate` name it (W3C Trace Context)."""

    trace_id: int
    span_id: int
    sampled: bool
    state: str = ""


def parent_of(traceparent: str | None, tracestate: str | None = None) -> Parent | None:
    """None where there is none, or none that can be understood: then the trace begins here."""
    found = _TRACEPARENT.fullmatch(traceparent.strip()) if traceparent else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    if not trace_id or not span_id:
        return None
    state = tracestate or ""
    return Parent(trace_id, span_id, bool(int(found[4], 16) & 1), state if len(state) <= _LONGEST_STATE else "")


class Trace(Protocol):
    """A request's own span. Times are of `time.time_ns()`."""

    trace_id: int

    def child(self, name: str, start: int, end: int, values: Values, *, failed: bool = False) -> None:
        """A part of it that is over."""

    def end(self, name: str, start: int, end: int, values: Values, *, failed: bool = False) -> None: ...


class Tracing(Protocol):
    def begin(self, parent: Parent | None) -> Trace | None:
        """None: not sampled."""

    def close(self) -> None:
        """Blocking: sends what is left."""


class Record:
    """One request under way. Times are of `time.perf_counter_ns()`, as the scheduler's."""

    __slots__ = (
        "client",
        "logged",
        "model",
        "outputs",
        "parent",
        "received",
        "sent",
        "started",
        "trace",
        "version",
        "wall",
    )

    def __init__(self, parent: Parent | None, trace: Trace | None, *, logged: bool) -> None:
        self.parent = parent
        self.trace = trace
        self.logged = logged
        self.started = time.perf_counter_ns()
        self.wall = time.time_ns() - self.started
        """To be added for the time of day."""
        self.model = self.version = ""
        self.client = ""
        """Address of the connection's other side."""
        self.outputs = 0
        """When the outputs of its run were there."""
        self.received = self.sent = 0
        """Bytes of messages."""

    @property
    def trace_id(self) -> str | None:
        known = self.trace or self.parent
        return None if known is None else f"{known.trace_id:032x}"

    def served(self, model: str, version: str) -> None:
        """Who was found to answer it."""
        self.model, self.version = model, version

    def moved(self, received: int, sent: int) -> None:
        self.received += received
        self.sent += sent

    def ran(self, times: tuple[int, int, int], values: Values, *, failed: bool) -> None:
        """`times`: when it came into the queue, when its run began, when that ended."""
        if self.trace is not None:
            came, began, ended = (moment + self.wall for moment in times)
            values = {"modelpier.model": self.model, "modelpier.version": self.version, **values}
            self.trace.child("queue", came, began, values)
            self.trace.child("run", began, ended, values, failed=failed)

    def serialising(self) -> None:
        """Outputs become an answer from now on."""
        self.outputs = time.perf_counter_ns()

    def serialised(self) -> None:
        """The last ones are on their way to the client."""
        if self.trace is not None and self.outputs:
            self.trace.child("serialise", self.outputs + self.wall, time.perf_counter_ns() + self.wall, {})
            self.outputs = 0


current: ContextVar[Record | None] = ContextVar("current", default=None)
"""Of the task that handles a request which has a record; handlers that run in no task of their own are told."""


class Recorder:
    """One per process. `log`: the share of requests that get a line; `tracing` None: no traces."""

    def __init__(self, log: float = 0.0, tracing: Tracing | None = None) -> None:
        self._log = log
        self._tracing = tracing

    def begin(self, traceparent: str | None, tracestate: str | None, *, worth: bool = True) -> Record | None:
        """None: nothing is noted of it. What is not `worth` a trace by itself gets one where its client has one."""
        parent = parent_of(traceparent, tracestate)
        traced = self._tracing is not None and (worth or parent is not None)
        trace = self._tracing.begin(parent) if self._tracing is not None and traced else None
        logged = self._log >= 1 or random.random() < self._log  # noqa: S311 - a sample, no secret
        return Record(parent, trace, logged=logged) if trace is not None or logged else None

    def end(
        self, record: Record, name: str, values: Values, line: Callable[[], Mapping[str, object]], *, failed: bool
    ) -> None:
        """`line` is asked only where it is logged. `failed`: by the server's own fault."""
        now = time.perf_counter_ns()
        record.serialised()
        if record.trace is not None:
            found = {"modelpier.model": record.model, "modelpier.version": record.version} if record.model else {}
            times = (record.started + record.wall, now + record.wall)
            record.trace.end(name, *times, {**values, **found}, failed=failed)
        if record.logged:
            fields = {
                **line(),
                "client": record.client or None,
                "model": record.model or None,
                "version": record.version or None,
                "seconds": round((now - record.started) / 1e9, 6),
                "trace_id": record.trace_id,
            }
            access.info("request", extra=fields)


def path_of(url: bytes) -> str:
    """For logs and traces: without the query, where clients put keys."""
    return url.partition(b"?")[0][:_LONGEST_PATH].decode("latin-1")
