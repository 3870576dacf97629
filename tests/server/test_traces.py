"""Traces as a collector gets them from the real server: over OTLP, with the client's context, and never in the way."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton

from support.collector import Collector, Span, collecting
from support.server_process import ServerProcess, free_port, infer_body, server, wait_for

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
INFER = "/v2/models/m/infer"
SERVER_KIND = 2


def environment(collector: Collector, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100", **more}


def named(spans: list[Span], name: str) -> Span:
    (found,) = [span for span in spans if span.name == name]
    return found


def check_tree(spans: list[Span], root: Span) -> None:
    """Queue, run and serialise below the request's span, one after the other and within it."""
    parts = [named(spans, name) for name in ("queue", "run", "serialise")]
    assert all(part.parent_id == root.span_id and part.trace_id == root.trace_id for part in parts)
    times = [moment for part in parts for moment in (part.start, part.end)]
    assert times == sorted(times)
    assert root.start <= times[0]
    assert times[-1] <= root.end + 1_000_000
    assert abs(root.end - time.time_ns()) < 60e9
    run = parts[1].values
    assert (run["modelpier.model"], run["modelpier.version"]) == ("m", "1")
    assert (run["modelpier.rows"], run["modelpier.batch.rows"], run["modelpier.batch.requests"]) == (1, 1, 1)


def test_the_clients_context_arrives_over_http(tmp_path: Path, identity: Path) -> None:
    with (
        collecting() as collector,
        server(tmp_path / "s", "--model", f"m={identity}", environment=environment(collector)) as running,
    ):
        running.wait_ready()
        headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=value"}
        with triton.InferenceServerClient(f"127.0.0.1:{running.port}") as client:
            asked = triton.InferInput("x", [1, 3], "FP32")
            asked.set_data_from_numpy(np.ones((1, 3), np.float32))
            client.infer("m", [asked], headers=headers)
        spans = collector.wait_for(4)
        assert len(spans) == 4, "probes get no traces"
        root = named(spans, "POST /v2/models/{model}/infer")
        assert (root.trace_id, root.parent_id, root.state) == (TRACE, PARENT, "vendor=value")
        assert root.kind == SERVER_KIND
        assert root.service == "modelpier-server"
        assert not root.failed
        assert root.values == {
            "http.request.method": "POST",
            "http.route": "/v2/models/{model}/infer",
            "http.response.status_code": 200,
            "url.path": INFER,
            "modelpier.model": "m",
            "modelpier.version": "1",
        }
        check_tree(spans, root)


def test_the_clients_context_arrives_over_grpc(tmp_path: Path, identity: Path) -> None:
    with (
        collecting() as collector,
        server(tmp_path / "s", "--model", f"m={identity}", environment=environment(collector), grpc=True) as running,
    ):
        running.wait_ready()
        asked = triton_grpc.InferInput("x", [1, 3], "FP32")
        asked.set_data_from_numpy(np.ones((1, 3), np.float32))
        with triton_grpc.InferenceServerClient(f"127.0.0.1:{running.grpc}") as client:
            client.infer("m", [asked], headers={"traceparent": TRACEPARENT, "tracestate": "vendor=value"})
        spans = collector.wait_for(4)
        root = named(spans, "inference.GRPCInferenceService/ModelInfer")
        assert (root.trace_id, root.parent_id, root.state) == (TRACE, PARENT, "vendor=value")
        assert root.values["rpc.grpc.status_code"] == grpc.StatusCode.OK.value[0]
        check_tree(spans, root)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/m:predict", {"instances": [[1, 2, 3]]}),
        ("/model", {"model_name": "m", "input_data": [[1, 2, 3]]}),
        ("/invocations", {"instances": [[1, 2, 3]]}),
    ],
)
def test_other_routes_too(traced: tuple[ServerProcess, Collector], path: str, body: object) -> None:
    running, collector = traced
    collector.spans.clear()
    assert running.call("POST", path, json.dumps(body).encode())[0] == 200
    spans = collector.wait_for(4)
    (root,) = [span for span in spans if span.kind == SERVER_KIND]
    assert not root.parent_id
    check_tree(spans, root)


def test_requests_that_fail(traced: tuple[ServerProcess, Collector]) -> None:
    running, collector = traced
    collector.spans.clear()
    assert running.call("POST", INFER, b"{}", {"traceparent": TRACEPARENT})[0] == 400
    (span,) = collector.wait_for(1)
    assert span.values["http.response.status_code"] == 400
    assert not span.failed, "that was the client's mistake"
    collector.spans.clear()
    assert running.call("POST", "/v2/models/nobody/infer", infer_body())[0] == 404
    assert collector.wait_for(1)[0].values["modelpier.model"] == "nobody"


@pytest.fixture
def traced(tmp_path: Path, identity: Path) -> Iterator[tuple[ServerProcess, Collector]]:
    with (
        collecting() as collector,
        server(tmp_path / "s", "--model", f"m={identity}", environment=environment(collector)) as running,
    ):
        running.wait_ready()
        yield running, collector


def test_sampling_and_names_are_the_environments(tmp_path: Path, identity: Path) -> None:
    with (
        collecting() as collector,
        server(
            tmp_path / "s",
            "--model",
            f"m={identity}",
            environment=environment(
                collector,
                OTEL_TRACES_SAMPLER="parentbased_traceidratio",
                OTEL_TRACES_SAMPLER_ARG="0",
                OTEL_SERVICE_NAME="digits",
                OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
            ),
        ) as running,
    ):
        running.wait_ready()
        for parent in ("", f"00-{TRACE}-{PARENT}-00", "nonsense"):
            assert running.call("POST", INFER, infer_body(), {"traceparent": parent})[0] == 200
        assert running.call("POST", INFER, infer_body(), {"traceparent": TRACEPARENT})[0] == 200
        running.signal(signal.SIGTERM)
        assert running.wait() == 0  # which sends what is left
        assert {span.trace_id for span in collector.spans} == {TRACE}
        assert {span.service for span in collector.spans} == {"digits"}
        assert len(collector.spans) == 4


@pytest.mark.parametrize("way", ["refuses", "hangs"])
def test_a_collector_that_is_down_is_in_nobodys_way(tmp_path: Path, identity: Path, way: str) -> None:
    with collecting() as collector:
        collector.hang = threading.Event()
        if way == "refuses":
            collector.url = f"http://127.0.0.1:{free_port()}"
        bounds = {"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "32"}
        with server(
            tmp_path / "s", "--model", f"m={identity}", environment=environment(collector, **bounds)
        ) as running:
            running.wait_ready()
            begin = time.monotonic()
            for _ in range(300):  # 1200 spans: many times what the queue holds
                assert running.call("POST", INFER, infer_body())[0] == 200
            assert time.monotonic() - begin < 30
            begin = time.monotonic()
            running.signal(signal.SIGTERM)
            assert running.wait() == 0
            assert time.monotonic() - begin < 15
            assert running.output.count("\n") < 50, "the log must not be flooded"


def test_a_collector_that_refuses_is_told_of_once(tmp_path: Path, identity: Path) -> None:
    with collecting() as collector:
        collector.status = 403
        small = {"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}
        settings = environment(collector, **small)
        with server(tmp_path / "s", "--model", f"m={identity}", environment=settings) as running:
            running.wait_ready()
            for _ in range(20):
                assert running.call("POST", INFER, infer_body())[0] == 200
            wait_for(lambda: collector.requests >= 10)
            assert running.output.count("Failed to export") == 1
