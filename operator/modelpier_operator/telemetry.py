"""What the operator says of itself: JSON logs, and metrics in Prometheus' text format.

`__main__` configures the logs once; every other module gets the one Telemetry that `__main__` made, or uses `logging`.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, version 0.0.4).
"""

from __future__ import annotations

import json
import logging
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; upper bounds of all histograms."""

Labels = tuple[str, ...]


class Counter:
    """A number per combination of label values that only grows."""

    def __init__(self, name: str, description: str, labels: Labels = ()) -> None:
        self.name, self.description, self.labels = name, description, labels
        self.values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, *values: str, amount: float = 1.0) -> None:
        self.values[values] = self.values.get(values, 0.0) + amount

    def render(self) -> Iterator[str]:
        yield from _head(self.name, self.description, "counter")
        for values, number in sorted(self.values.items()):
            yield _sample(self.name, self.labels, values, number)


class Gauge:
    """A number that is asked for when somebody looks: value per combination of label values."""

    def __init__(self, name: str, description: str, labels: Labels, read: Callable[[], Mapping[Labels, float]]) -> None:
        self.name, self.description, self.labels, self.read = name, description, labels, read

    def render(self) -> Iterator[str]:
        yield from _head(self.name, self.description, "gauge")
        for values, number in sorted(self.read().items()):
            yield _sample(self.name, self.labels, values, number)


@dataclass
class _Distribution:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0


class Histogram:
    """Durations in seconds per combination of label values."""

    def __init__(self, name: str, description: str, labels: Labels = ()) -> None:
        self.name, self.description, self.labels = name, description, labels
        self.values: dict[Labels, _Distribution] = {}

    def observe(self, seconds: float, *values: str) -> None:
        distribution = self.values.setdefault(values, _Distribution())
        distribution.counts[bisect_left(BUCKETS, seconds)] += 1
        distribution.total += seconds

    def render(self) -> Iterator[str]:
        yield from _head(self.name, self.description, "histogram")
        for values, distribution in sorted(self.values.items()):
            seen = 0
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), distribution.counts, strict=True):
                seen += count
                yield _sample(f"{self.name}_bucket", (*self.labels, "le"), (*values, bound), seen)
            yield _sample(f"{self.name}_sum", self.labels, values, distribution.total)
            yield _sample(f"{self.name}_count", self.labels, values, seen)


class Telemetry:
    """All metrics of one operator process. docs/reference/operator.md lists them."""

    def __init__(self) -> None:
        self.reconciles = Counter(
            "modelpier_operator_reconciles_total", "Passes over one ModelDeployment, by how they ended.", ("result",)
        )
        self.reconcile_seconds = Histogram("modelpier_operator_reconcile_duration_seconds", "Duration of a pass.")
        self.requests = Histogram(
            "modelpier_operator_api_request_duration_seconds",
            "Requests to the API server, watches aside.",
            ("verb", "resource", "code"),
        )
        self.writes = Counter(
            "modelpier_operator_writes_total", "Writes that the API server accepted.", ("verb", "resource")
        )
        self.repeated = Counter(
            "modelpier_operator_stubborn_objects_total",
            "Objects that the API server, a webhook or somebody else kept different from what was applied.",
            ("resource",),
        )
        self.lost = Counter("modelpier_operator_lost_deletions_total", "Deletions found by the rare listing of names.")
        self.relists = Counter("modelpier_operator_relists_total", "Listings by the informers.", ("resource",))
        self.gauges: list[Gauge] = []

    def gauge(self, name: str, description: str, read: Callable[[], float]) -> None:
        self.gauges.append(Gauge(name, description, (), lambda: {(): read()}))

    def gauges_by(self, label: str, name: str, description: str, read: Callable[[], Mapping[str, float]]) -> None:
        self.gauges.append(Gauge(name, description, (label,), lambda: {(k,): v for k, v in read().items()}))

    def render(self) -> str:
        fixed: tuple[Counter | Histogram, ...] = (
            self.reconciles,
            self.reconcile_seconds,
            self.requests,
            self.writes,
            self.repeated,
            self.lost,
            self.relists,
        )
        lines = [line for metric in [*fixed, *self.gauges] for line in metric.render()]
        return "\n".join(lines) + "\n"


def _head(name: str, description: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {description}", f"# TYPE {name} {kind}"


def _sample(name: str, labels: Labels, values: Labels, number: float) -> str:
    pairs = ",".join(f'{label}="{_escaped(value)}"' for label, value in zip(labels, values, strict=True))
    shown = int(number) if float(number).is_integer() else number
    return f"{name}{{{pairs}}} {shown}" if pairs else f"{name} {shown}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, what `extra={"fields": {...}}` adds, error."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure_logs(level: str = "INFO") -> None:
    """JSON on standard error, for this process. kopf's own messages are kept from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
