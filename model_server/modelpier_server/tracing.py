"""Traces by OpenTelemetry's SDK, sent over OTLP (http/protobuf) as its standard variables say.

Imported only where the environment names a collector (`settings.tracing`): it costs a third of a second of the start.
Spans are made when they are over, with the times that the server has measured anyhow: a span by `start_span` costs the
event loop eight times as much. They wait in a bounded queue for a thread that sends them; where the collector is down
the oldest are lost, and no request notices.
"""

from __future__ import annotations

import logging
import os
import threading

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from modelpier_server.records import Parent, Values

SERVICE = "modelpier-server"
"""Where OTEL_SERVICE_NAME says nothing else."""
LAST_SPANS = 3.0
"""Seconds that the end of the server waits for what is left to be sent."""
QUIET = 60.0
"""Seconds between lines about a collector that takes nothing."""
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)


class OtlpTracing:
    """Sampling and service name come from the environment (OTEL_TRACES_SAMPLER and the like); so does the collector."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        # Every span that is dropped, and every batch that a collector refuses, would be a line.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(Seldom())
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._sampler = provider.sampler
        self._ids = provider.id_generator
        self._resource = provider.resource
        self._scope = InstrumentationScope("modelpier_server")
        self._processor = BatchSpanProcessor(exporter or OTLPSpanExporter())

    def begin(self, parent: Parent | None) -> OtlpTrace | None:
        """None: not sampled."""
        above = None if parent is None else _context_of(parent)
        trace_id = self._ids.generate_trace_id() if parent is None else parent.trace_id
        around = None if above is None else set_span_in_context(NonRecordingSpan(above))
        result = self._sampler.should_sample(around, trace_id, "request", SpanKind.SERVER)
        if result.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        return OtlpTrace(self, trace_id, above, result.trace_state)

    def context(self, trace_id: int, state: TraceState | None) -> SpanContext:
        return SpanContext(
            trace_id, self._ids.generate_span_id(), is_remote=False, trace_flags=_SAMPLED, trace_state=state
        )

    def emit(
        self,
        name: str,
        contexts: tuple[SpanContext, SpanContext | None],
        times: tuple[int, int],
        values: Values,
        *,
        kind: SpanKind,
        failed: bool,
    ) -> None:
        """`contexts`: its own and its parent's."""
        own, above = contexts
        start, end = times
        span = ReadableSpan(
            name,
            own,
            above,
            self._resource,
            values,
            kind=kind,
            status=_ERROR if failed else _UNSET,
            start_time=start,
            end_time=max(start, end),
            instrumentation_scope=self._scope,
        )
        self._processor.on_end(span)

    def close(self) -> None:
        """Blocking, for LAST_SPANS seconds at most: the SDK itself would try for half a minute."""
        ending = threading.Thread(target=self._processor.shutdown, name="last-spans", daemon=True)
        ending.start()
        ending.join(LAST_SPANS)


class OtlpTrace:
    """The span of one request."""

    __slots__ = ("_above", "_own", "_tracing", "trace_id")

    def __init__(
        self, tracing: OtlpTracing, trace_id: int, above: SpanContext | None, state: TraceState | None
    ) -> None:
        self.trace_id = trace_id
        self._tracing = tracing
        self._above = above
        self._own = tracing.context(trace_id, state)

    def child(self, name: str, start: int, end: int, values: Values, *, failed: bool = False) -> None:
        own = self._tracing.context(self.trace_id, self._own.trace_state)
        self._tracing.emit(name, (own, self._own), (start, end), values, kind=SpanKind.INTERNAL, failed=failed)

    def end(self, name: str, start: int, end: int, values: Values, *, failed: bool = False) -> None:
        contexts = (self._own, self._above)
        self._tracing.emit(name, contexts, (start, end), values, kind=SpanKind.SERVER, failed=failed)


class Seldom(logging.Filter):
    """Lets a line through per QUIET seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._last = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        passes = record.created - self._last >= QUIET
        if passes:
            self._last = record.created
        return passes


def _context_of(parent: Parent) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    state = TraceState.from_header([parent.state])
    return SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags, trace_state=state)


def _resource() -> Resource:
    named = "OTEL_SERVICE_NAME" in os.environ or f"{SERVICE_NAME}=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({} if named else {SERVICE_NAME: SERVICE})
