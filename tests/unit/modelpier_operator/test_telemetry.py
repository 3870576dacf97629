from __future__ import annotations

import json
import logging

from modelpier_operator.telemetry import JsonFormatter, Telemetry


def lines(telemetry: Telemetry, start: str) -> list[str]:
    return [line for line in telemetry.render().splitlines() if line.startswith(start)]


def test_a_counter_has_one_line_for_each_combination() -> None:
    telemetry = Telemetry()
    telemetry.reconciles.add("ok")
    telemetry.reconciles.add("ok")
    telemetry.reconciles.add("error")
    assert lines(telemetry, "modelpier_operator_reconciles_total") == [
        'modelpier_operator_reconciles_total{result="error"} 1',
        'modelpier_operator_reconciles_total{result="ok"} 2',
    ]


def test_buckets_are_cumulative() -> None:
    telemetry = Telemetry()
    for seconds in (0.001, 0.3, 99.0):
        telemetry.reconcile_seconds.observe(seconds)
    found = lines(telemetry, "modelpier_operator_reconcile_duration_seconds")
    assert 'modelpier_operator_reconcile_duration_seconds_bucket{le="0.002"} 1' in found
    assert 'modelpier_operator_reconcile_duration_seconds_bucket{le="0.5"} 2' in found
    assert 'modelpier_operator_reconcile_duration_seconds_bucket{le="+Inf"} 3' in found
    assert "modelpier_operator_reconcile_duration_seconds_count 3" in found


def test_gauges_are_read_when_asked_and_labels_are_escaped() -> None:
    telemetry, depth = Telemetry(), [1.0]
    telemetry.gauge("depth", "d", lambda: depth[0])
    telemetry.gauges_by("resource", "age", "a", lambda: {'a"b\\': 0.5})
    depth[0] = 3.0
    assert lines(telemetry, "depth") == ["depth 3"]
    assert lines(telemetry, "age") == ['age{resource="a\\"b\\\\"} 0.5']


def test_logs_are_json_with_the_error() -> None:
    try:
        raise ValueError("broken")  # noqa: TRY301 - with a traceback
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("n", logging.ERROR, "f", 1, "it %s", ("failed",), info)
    entry = json.loads(JsonFormatter().format(record))
    assert (entry["level"], entry["logger"], entry["message"]) == ("error", "n", "it failed")
    assert "ValueError: broken" in entry["error"]
