"""Triton's statistics extension: the counters of `telemetry` in the form that its clients read.

Source: Triton's `extension_statistics.md`. Counts of durations are those of successful requests, as in Triton's core;
there is no response cache, so its two entries are zero.
"""

from __future__ import annotations

import time
from typing import Any

from modelpier_server.telemetry import BatchMetrics, ModelMetrics


def model_statistics(metrics: ModelMetrics) -> dict[str, Any]:
    """One `$model_stat`."""
    return {
        "name": metrics.name,
        "version": metrics.version,
        "last_inference": _milliseconds(metrics.last_inference),
        "inference_count": metrics.rows,
        "execution_count": metrics.executions,
        "inference_stats": _requests(metrics),
        "response_stats": {},
        "batch_stats": [_batch(rows, batch) for rows, batch in sorted(metrics.batches.items())],
        "memory_usage": [],
    }


def _requests(metrics: ModelMetrics) -> dict[str, Any]:
    success = metrics.success
    return {
        "success": _duration(success, int(metrics.request_ns)),
        "fail": _duration(metrics.failed, metrics.fail_ns),
        "queue": _duration(success, metrics.queue_ns),
        "compute_input": _duration(success, metrics.compute_input_ns),
        "compute_infer": _duration(success, metrics.compute_infer_ns),
        "compute_output": _duration(success, metrics.compute_output_ns),
        "cache_hit": _duration(0, 0),
        "cache_miss": _duration(0, 0),
    }


def _batch(rows: int, batch: BatchMetrics) -> dict[str, Any]:
    return {
        "batch_size": rows,
        "compute_input": _duration(batch.runs, batch.input_ns),
        "compute_infer": _duration(batch.runs, batch.infer_ns),
        "compute_output": _duration(batch.runs, batch.output_ns),
    }


def _duration(count: int, nanoseconds: int) -> dict[str, int]:
    return {"count": count, "ns": nanoseconds}


def _milliseconds(moment: int) -> int:
    """Since the epoch, of a moment of `time.perf_counter_ns`; 0 stays 0."""
    return (time.time_ns() - (time.perf_counter_ns() - moment)) // 1_000_000 if moment else 0
