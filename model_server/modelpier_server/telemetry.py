"""Figures and logs of the server.

Figures are plain numbers that only the event loop changes; text is made when somebody scrapes METRICS_PATH. Names and
labels are Triton's (`nv_inference_*`: existing dashboards and autoscalers read them), and `modelpier_*` where Triton
has none. Logs are one JSON object per line: `configure` once at the start, then `logging` as usual with
`extra={"field": value}`.
"""

from __future__ import annotations

import logging
import sys
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from queue import Full, Queue
from typing import Any, TextIO

import orjson

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ACCESS_LOG = "modelpier_server.access"
"""Name of the logger that gets a line per request."""
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
BATCH_SIZES = 256
"""Clients choose how many rows they send: more different numbers are not told apart."""
RECENT = 256
"""Values that wait to be sorted into a histogram."""
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Failure(StrEnum):
    """Triton's values of the label `reason` of nv_inference_request_failure."""

    REJECTED = "REJECTED"  # queue full, or its time over
    CANCELED = "CANCELED"  # the client went away
    BACKEND = "BACKEND"  # the model failed
    OTHER = "OTHER"  # the request was wrong


class Histogram:
    """Buckets of Prometheus, added up when they are rendered. `unit`: of what is observed, in that of the bounds.

    Values wait in `recent` until somebody reads, or there are many of them: the hot path appends to
    a list, which costs a tenth of finding the bucket of a single value; sorted, hundreds of them are nearly free.
    """

    __slots__ = ("_buckets", "_total", "bounds", "limits", "recent", "unit")

    def __init__(self, bounds: tuple[float, ...], unit: float = 1.0) -> None:
        self.bounds = bounds
        self.unit = unit
        self.limits = tuple(bound / unit for bound in bounds)
        self.recent: list[float] = []
        self._buckets = [0] * (len(bounds) + 1)
        self._total: float = 0

    def settle(self) -> None:
        """Finds the buckets of what has been observed."""
        recent = self.recent
        recent.sort()
        self._total += sum(recent)
        before = 0
        for index, limit in enumerate(self.limits):
            upto = bisect_right(recent, limit, before)
            self._buckets[index] += upto - before
            before = upto
        self._buckets[-1] += len(recent) - before
        recent.clear()

    @property
    def buckets(self) -> list[int]:
        self.settle()
        return self._buckets

    @property
    def total(self) -> float:
        self.settle()
        return self._total

    def lines(self, name: str, labels: str) -> Iterator[str]:
        count = 0
        for bound, bucket in zip((*self.bounds, "+Inf"), self.buckets, strict=True):
            count += bucket
            yield f'{name}_bucket{{{labels},le="{bound}"}} {count}'
        yield f"{name}_sum{{{labels}}} {self.total * self.unit}"
        yield f"{name}_count{{{labels}}} {count}"


@dataclass(slots=True, eq=False)
class BatchMetrics:
    """Runs of one number of rows; durations are sums over runs in nanoseconds."""

    runs: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


@dataclass(slots=True, eq=False)
class ModelMetrics:
    """Figures of one version of one model. Durations are sums over requests in nanoseconds, as Triton adds them up."""

    name: str
    version: str
    holders: int = 0
    success: int = 0
    failures: dict[Failure, int] = field(default_factory=lambda: dict.fromkeys(Failure, 0))
    rows: int = 0
    executions: int = 0
    pending: int = 0
    queue_ns: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0
    fail_ns: int = 0
    last_inference: int = 0
    """`time.perf_counter_ns()` of the last answer; 0: none yet."""
    batches: dict[int, BatchMetrics] = field(default_factory=dict)
    """By rows; of the first BATCH_SIZES different numbers of rows."""
    request_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS, 1e-9))
    queue_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS, 1e-9))
    run_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS, 1e-9))
    serialise_seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS, 1e-9))
    batch_rows: Histogram = field(default_factory=lambda: Histogram(ROWS))

    def ran(self, rows: int, spent: tuple[int, int, int]) -> None:
        """A batch of so many rows; `spent` nanoseconds on its input, on its run, on its output."""
        self.batch_rows.recent.append(rows)
        self.run_seconds.recent.append(spent[0] + spent[1])
        if len(self.run_seconds.recent) >= RECENT or len(self.request_seconds.recent) >= RECENT:
            self._settle()
        batch = self.batches.get(rows)
        if batch is None:
            if len(self.batches) >= BATCH_SIZES:
                return
            batch = self.batches[rows] = BatchMetrics()
        batch.runs += 1
        batch.input_ns += spent[0]
        batch.infer_ns += spent[1]
        batch.output_ns += spent[2]

    def _settle(self) -> None:
        """What has been observed must not pile up until somebody reads."""
        for name, _ in _HISTOGRAMS:
            getattr(self, name).settle()

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def request_ns(self) -> float:
        return self.request_seconds.total

    @property
    def labels(self) -> str:
        return f'model="{escape(self.name)}",version="{escape(self.version)}"'


_COUNTERS = (
    ("nv_inference_request_success", "success", "Requests answered"),
    ("nv_inference_count", "rows", "Rows inferred (a batch of n counts n)"),
    ("nv_inference_exec_count", "executions", "Runs of the model (a batch counts 1)"),
)
_DURATIONS = (
    ("nv_inference_request_duration_us", "request_ns", "Microseconds from a request's arrival to its answer"),
    ("nv_inference_queue_duration_us", "queue_ns", "Microseconds that requests waited for a run"),
    ("nv_inference_compute_input_duration_us", "compute_input_ns", "Microseconds that inputs took to be put together"),
    ("nv_inference_compute_infer_duration_us", "compute_infer_ns", "Microseconds that runs took"),
    (
        "nv_inference_compute_output_duration_us",
        "compute_output_ns",
        "Microseconds that outputs took to be taken apart and encoded",
    ),
)


class Metrics:
    """All figures of one server."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        self.http_responses: dict[int, int] = {}
        self.grpc_responses: dict[str, int] = {}
        self.connections = 0
        self.reloads: dict[tuple[str, str], int] = {}
        """By what was read again from its files, and the result: `taken` or `refused`."""
        self.certificate_ends: float | None = None
        """Seconds of the epoch; None: no TLS."""
        self.failed_handshakes = 0
        self.sources: list[Callable[[], Iterator[str]]] = []
        """Further lines: of what is only there with some plans."""

    def hold(self, name: str, version: str) -> ModelMetrics:
        """Figures of one version, shared by all that serve it, until each has called `release`."""
        metrics = self._models.setdefault((name, version), ModelMetrics(name, version))
        metrics.holders += 1
        return metrics

    def find(self, name: str, version: str) -> ModelMetrics | None:
        return self._models.get((name, version))

    def release(self, metrics: ModelMetrics) -> None:
        """Series of models that are gone must not pile up."""
        metrics.holders -= 1
        if not metrics.holders:
            self._models.pop((metrics.name, metrics.version), None)

    def render(self) -> bytes:
        """Prometheus text format 0.0.4."""
        return ("\n".join(self._lines()) + "\n").encode()

    def _lines(self) -> Iterator[str]:
        models = sorted(self._models.values(), key=lambda model: (model.name, model.version))
        for name, attribute, text in _COUNTERS:
            yield from family(name, "counter", text)
            yield from (f"{name}{{{m.labels}}} {getattr(m, attribute)}" for m in models)
        yield from _failures(models)
        for name, attribute, text in _DURATIONS:
            yield from family(name, "counter", text)
            yield from (f"{name}{{{m.labels}}} {int(getattr(m, attribute)) // 1000}" for m in models)
        yield from family("nv_inference_pending_request_count", "gauge", "Requests that wait for a run")
        yield from (f"nv_inference_pending_request_count{{{m.labels}}} {m.pending}" for m in models)
        yield from _histograms(models)
        yield from family("modelpier_http_responses_total", "counter", "Answers by HTTP status")
        yield from (f'modelpier_http_responses_total{{code="{c}"}} {n}' for c, n in sorted(self.http_responses.items()))
        yield from family("modelpier_grpc_responses_total", "counter", "Answers by gRPC status; one per stream")
        yield from (f'modelpier_grpc_responses_total{{code="{c}"}} {n}' for c, n in sorted(self.grpc_responses.items()))
        yield from family("modelpier_http_connections", "gauge", "Open connections")
        yield f"modelpier_http_connections {self.connections}"
        yield from self._security()
        for source in self.sources:
            yield from source()

    def _security(self) -> Iterator[str]:
        """Nothing where nothing is read from files and there is no TLS."""
        name = "modelpier_security_reloads_total"
        if self.reloads:
            yield from family(name, "counter", "Changed files of certificates and API keys, taken or refused")
            pairs = sorted(self.reloads.items())
            yield from (f'{name}{{what="{what}",result="{result}"}} {count}' for (what, result), count in pairs)
        if self.certificate_ends is not None:
            name = "modelpier_tls_certificate_not_after_seconds"
            yield from family(name, "gauge", "When the certificate in use ends, in seconds since 1970")
            yield f"{name} {self.certificate_ends:.0f}"
            name = "modelpier_tls_handshake_failures_total"
            yield from family(name, "counter", "HTTP connections that never became secure")
            yield f"{name} {self.failed_handshakes}"


def _failures(models: Iterable[ModelMetrics]) -> Iterator[str]:
    name = "nv_inference_request_failure"
    yield from family(name, "counter", "Requests not answered, by reason")
    for model in models:
        for reason, count in model.failures.items():
            yield f'{name}{{{model.labels},reason="{reason}"}} {count}'


_HISTOGRAMS = (
    ("request_seconds", ("modelpier_request_duration_seconds", "From a request's arrival to its answer")),
    ("queue_seconds", ("modelpier_queue_duration_seconds", "From a request's arrival to the start of its run")),
    ("run_seconds", ("modelpier_run_duration_seconds", "Of runs, with putting their inputs together")),
    ("serialise_seconds", ("modelpier_serialise_duration_seconds", "From outputs to an answer")),
    ("batch_rows", ("modelpier_batch_rows", "Rows per run")),
)
"""Attributes of ModelMetrics; names and texts."""


def _histograms(models: list[ModelMetrics]) -> Iterator[str]:
    for attribute, (name, text) in _HISTOGRAMS:
        yield from family(name, "histogram", text)
        for model in models:
            yield from getattr(model, attribute).lines(name, model.labels)


def family(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


# ------------------------------------------------------------------------------------------------ logs
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One line per event: time (UTC), level, logger, message, the fields given as `extra`, and the trace of an
    exception.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(vars(record)),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _extra(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in _STANDARD}


class TextFormatter(logging.Formatter):
    """For people: time of day, level, message, and the fields that have a value."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={value}" for key, value in _extra(vars(record)).items() if value is not None)
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname:<7} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Backlog(logging.Handler):
    """Lines that a thread of its own writes: whoever reads the log too slowly loses lines, and holds up no request."""

    def __init__(self, target: logging.Handler, most: int = 10_000) -> None:
        super().__init__()
        self._target = target
        self._waiting: Queue[logging.LogRecord | None] = Queue(most)
        self._lost = 0
        self._thread = threading.Thread(target=self._work, name="access-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._waiting.put_nowait(record)
        except Full:
            self._lost += 1

    def _work(self) -> None:
        while (record := self._waiting.get()) is not None:
            lost, self._lost = self._lost, 0
            if lost:
                self._target.handle(logging.makeLogRecord({**vars(record), "msg": "lines lost", "lost": lost}))
            self._target.handle(record)

    def close(self) -> None:
        """Waits a little for what is left."""
        try:
            self._waiting.put(None, timeout=LAST_LINES)
        except Full:
            return
        self._thread.join(LAST_LINES)
        super().close()


LAST_LINES = 2.0
"""Seconds for the lines that are not written yet at the end of the server."""


def configure(level: str = "INFO", stream: TextIO = sys.stderr, *, text: bool = False, access: bool = False) -> None:
    """Sends the logs of this package, and of everybody else in this process, to `stream`. With `access` the lines of
    requests take a way of their own there.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if access:
        log = logging.getLogger(ACCESS_LOG)
        log.handlers, log.propagate = [Backlog(handler)], False
        log.setLevel(logging.INFO)  # it was asked for, whatever else is
