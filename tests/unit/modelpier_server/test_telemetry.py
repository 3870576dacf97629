"""Figures as Prometheus reads them and logs as one object per line."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator

import pytest

from modelpier_server import telemetry
from modelpier_server.telemetry import Failure, Histogram, Metrics


def test_buckets_are_cumulative() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.recent.append(value)
    assert list(histogram.lines("h", 'a="b"')) == [
        'h_bucket{a="b",le="1.0"} 2',
        'h_bucket{a="b",le="2.0"} 3',
        'h_bucket{a="b",le="+Inf"} 4',
        'h_sum{a="b"} 12.0',
        'h_count{a="b"} 4',
    ]


def test_series_live_as_long_as_their_holders() -> None:
    metrics = Metrics()
    first, second = metrics.hold("m", "1"), metrics.hold("m", "1")
    assert first is second
    first.success += 3
    metrics.release(first)
    assert b'nv_inference_request_success{model="m",version="1"} 3' in metrics.render()
    metrics.release(second)
    assert b'model="m"' not in metrics.render()


def test_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.hold('a"b\\c\nd', "1")
    assert rb'model="a\"b\\c\nd"' in metrics.render()


def test_durations_are_microseconds() -> None:
    metrics = Metrics()
    held = metrics.hold("m", "1")
    held.request_seconds.recent.append(1_234_567)
    held.failures[Failure.REJECTED] = 2
    text = metrics.render().decode()
    assert 'nv_inference_request_duration_us{model="m",version="1"} 1234' in text
    assert 'nv_inference_request_failure{model="m",version="1",reason="REJECTED"} 2' in text


def test_every_family_is_described_once_and_before_its_samples() -> None:
    metrics = Metrics()
    metrics.hold("m", "1")
    metrics.hold("n", "1")
    metrics.http_responses[200] = 1
    described: list[str] = []
    for line in metrics.render().decode().splitlines():
        if line.startswith("# TYPE"):
            described.append(line.split()[2])
        elif not line.startswith("#"):
            assert line.startswith(described[-1])
    assert len(described) == len(set(described))


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    telemetry.configure("INFO", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_is_an_object(stream: io.StringIO) -> None:
    logging.getLogger("a.b").info("loaded %s", "m\nn", extra={"model": "m", "seconds": 0.5, "odd": {1: object}})
    (line,) = stream.getvalue().splitlines()
    value = json.loads(line)
    assert value["message"] == "loaded m\nn"
    assert (value["level"], value["logger"], value["model"], value["seconds"]) == ("info", "a.b", "m", 0.5)
    assert value["time"].endswith("+00:00")


def test_exceptions_stay_on_their_line(stream: io.StringIO) -> None:
    try:
        int("wrong")
    except ValueError:
        logging.getLogger("a").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: invalid literal" in json.loads(line)["exception"]


# ------------------------------------------------------------------------------------------------ histograms
def test_many_values_do_not_pile_up() -> None:
    held = Metrics().hold("m", "1")
    for _ in range(3 * telemetry.RECENT):
        held.request_seconds.recent.append(2e5)
        held.ran(3, (1000, 2_000_000, 1000))
        assert len(held.request_seconds.recent) <= telemetry.RECENT
        assert len(held.batch_rows.recent) <= telemetry.RECENT
    assert sum(held.request_seconds.buckets) == 3 * telemetry.RECENT
    assert held.run_seconds.buckets[telemetry.SECONDS.index(0.0025)] == 3 * telemetry.RECENT
    assert held.batch_rows.buckets[telemetry.ROWS.index(4)] == 3 * telemetry.RECENT


@pytest.mark.parametrize("name", ["queue", "run", "serialise", "request"])
def test_every_part_of_a_request_has_a_histogram(name: str) -> None:
    metrics = Metrics()
    held = metrics.hold("m", "1")
    getattr(held, f"{name}_seconds").recent.append(3_000_000)
    text = metrics.render().decode()
    family = f"modelpier_{name}_duration_seconds"
    assert f'{family}_bucket{{model="m",version="1",le="0.0025"}} 0' in text
    assert f'{family}_bucket{{model="m",version="1",le="0.005"}} 1' in text
    assert f'{family}_sum{{model="m",version="1"}} 0.003' in text


# ------------------------------------------------------------------------------------------------ the access log
class Stuck(logging.Handler):
    """Writes nothing until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.written, self.begun = threading.Event(), list[logging.LogRecord](), threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.begun.set()
        assert self.gate.wait(20)
        self.written.append(record)


def test_a_log_that_nobody_reads_holds_up_no_request() -> None:
    stuck = Stuck()
    backlog = telemetry.Backlog(stuck, most=5)
    backlog.handle(logging.makeLogRecord({"msg": "first"}))
    assert stuck.begun.wait(20)
    for number in range(20):  # five wait, the others are lost
        backlog.handle(logging.makeLogRecord({"msg": f"line {number}"}))
    stuck.gate.set()
    backlog.close()
    told = [record.getMessage() for record in stuck.written]
    assert told == ["first", "lines lost", *(f"line {number}" for number in range(5))]
    assert vars(stuck.written[1])["lost"] == 15
