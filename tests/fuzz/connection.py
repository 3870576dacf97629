"""Whole streams of bytes through a connection, a router, handlers and the scheduler, without a socket.

The first two bytes of an input say where the stream is cut into packets. It is sent twice, whole and in pieces: the
answers are proper HTTP, none of them is the server's fault, they are the same both times, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import orjson
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from fuzz.codecs import MODELS
from fuzz.targets import Check
from modelpier_server.contract import TensorSpec
from modelpier_server.records import Recorder
from modelpier_server.runtime import Control
from modelpier_server.runtime.tensors import Axes
from modelpier_server.scheduler import Servable, Turns
from modelpier_server.scheduler.probe import Finding
from modelpier_server.telemetry import Metrics
from modelpier_server.tracing import OtlpTracing
from modelpier_server.transport import Extras, HttpLimits, Server, inference_app
from modelpier_server.transport import connection as parsing
from modelpier_server.transport.connection import Connection
from support.serving import Shelf, planned, request_bytes

STATUSES = frozenset({100, 200, 400, 403, 404, 405, 413, 415, 417, 431, 501, 503, 505})
UNSTABLE = frozenset({413, 431, 503})
"""Depend on how much has come at once."""
LIMITS = HttpLimits(max_header_bytes=2048, max_headers=20, max_buffered_bytes=1 << 15, max_pipelined=4)
PATIENCE = 10.0
SERVED = {"m": MODELS[0], "two": MODELS[3], "t": MODELS[2]}


class Echo:
    """A session that gives back what it takes."""

    provider, instances, caller_only, on_loop = "CPUExecutionProvider", 1, True, True
    joins = False
    lost: Future[str] | None = None

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        self.inputs = self.outputs = tuple(specs)
        self.axes: Mapping[str, Axes] = {s.name: tuple(n if n >= 0 else None for n in s.shape) for s in specs}

    def run(
        self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], control: Control | None = None
    ) -> list[np.ndarray]:
        return [feeds[name] for name in outputs]

    def prepare(self, most: int) -> None:
        pass

    def close(self) -> None:
        pass


class Wire(asyncio.Transport):
    """What a connection writes, one entry per call."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.reading, self.open = True, True

    def write(self, data: Any) -> None:
        assert self.open, "written after the end"
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(bytes(part) for part in list_of_data))

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.open = False

    def is_closing(self) -> bool:
        return not self.open

    def close(self) -> None:
        self.open = False

    def abort(self) -> None:
        self.open = False


class Nowhere(SpanExporter):
    """A collector of traces that wants none."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class Collector(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.ERROR)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


class Rig:
    """One server for all inputs."""

    def __init__(self) -> None:
        parsing.SLICE = 64  # inputs are small
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        metrics, turns = Metrics(), Turns()
        self.shelf = Shelf({name: _servable(name, metrics, turns) for name in SERVED})
        self.server = self.loop.run_until_complete(self._serve(metrics))
        self.errors: list[logging.LogRecord] = []
        logging.getLogger().addHandler(Collector(self.errors))

    async def _serve(self, metrics: Metrics) -> Server:
        recorder = Recorder(1.0, OtlpTracing(Nowhere()))
        return Server(inference_app(self.shelf, metrics, Extras(recorder=recorder)), LIMITS)

    def answers(self, packets: Iterable[bytes]) -> list[int]:
        """Statuses of all answers."""
        return self.loop.run_until_complete(self._answers(packets))

    async def _answers(self, packets: Iterable[bytes]) -> list[int]:
        wire, connection = Wire(), Connection(self.server)
        connection.connection_made(wire)
        for packet in packets:
            if not wire.open:
                break
            connection.data_received(packet)
            if not wire.reading or self.busy:
                await self.settle()
            assert wire.reading or not wire.open, "nothing is read any longer"
        await self.settle()
        connection.connection_lost(None)
        await self.settle()
        assert not self.server.buffered, "bodies are held for nobody"
        assert not self.server.connections
        if self.errors:
            raise AssertionError(f"an error was logged: {self.errors.pop().getMessage()}")
        return [checked(answer) for answer in wire.written]

    @property
    def busy(self) -> bool:
        at_work = any(s.in_flight for s in self.shelf.servables.values())
        return at_work or bool(self.server._tasks) or any(c._due for c in self.server.connections)

    async def settle(self) -> None:
        """Until there is nothing left to be done."""
        end = 0.0
        while self.busy:
            await asyncio.sleep(0)
            end = end or time.monotonic() + PATIENCE
            assert time.monotonic() < end, "an answer does not come"


def _servable(name: str, metrics: Metrics, turns: Turns) -> Servable:
    session = Echo([TensorSpec(*spec) for spec in SERVED[name]])
    served = Servable(session, planned(name), metrics, turns)
    served.finding = Finding(4, "by the test")
    served._placement.learn(1, 0.0)
    served._placement.learn(1 << 20, 0.0)
    return served


def checked(answer: bytes) -> int:
    """The status of an answer that is proper HTTP."""
    head, end, body = answer.partition(b"\r\n\r\n")
    assert end, answer[:200]
    first, *lines = head.split(b"\r\n")
    assert first.startswith(b"HTTP/1.1 "), first
    status = int(first[9:12])
    assert status in STATUSES, answer[:400]
    if status == 100:
        return status
    headers = dict(line.lower().split(b": ", 1) for line in lines)
    assert len(headers) == len(lines), "a header is there twice"
    assert len(body) in {0, int(headers[b"content-length"])}  # 0: of HEAD
    if status >= 400 and body and status != 503:
        assert list(orjson.loads(body)) == ["error"]
    return status


def pieces(stream: bytes, seed: int) -> list[bytes]:
    rng, at, found = random.Random(seed), 0, []
    while at < len(stream):
        size = rng.choice((1, 2, 7, 30, 200))
        found.append(stream[at : at + size])
        at += size
    return found


def make_connection() -> Check:
    rig = Rig()

    def check(data: bytes) -> None:
        stream = data[2:]
        whole = rig.answers([stream])
        cut = rig.answers(pieces(stream, int.from_bytes(data[:2], "little")))
        if not UNSTABLE.intersection((*whole, *cut)):
            told = [[status for status in statuses if status != 100] for statuses in (whole, cut)]
            assert told[0] == told[1], f"whole {whole}, in pieces {cut}"

    return check


def seeds_connection() -> Mapping[str, bytes]:
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32"}
    body = orjson.dumps({"id": "1", "inputs": [{**tensor, "data": [1, 2, 3]}]})
    head = orjson.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 12}}]})
    infer = "/v2/models/m/infer"
    chunked = b"Host: t\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nA: b\r\n\r\n" % (len(body), body)
    target = {"Content-Type": "application/vnd.sagemaker-triton.binary+json;json-header-size=5"}
    streams = {
        "json": request_bytes("POST", infer, body, {"Content-Type": "application/json"}),
        "binary": request_bytes("POST", infer, head + bytes(12), {"Inference-Header-Content-Length": len(head)}),
        "raw": request_bytes("POST", infer, bytes(12), {"Inference-Header-Content-Length": 0}),
        "chunked": b"POST /v2/models/m/infer HTTP/1.1\r\n" + chunked,
        "plain": request_bytes("POST", "/model", b'{"model_name":"m","input_data":[[1,2,3]]}'),
        "predict": request_bytes("POST", "/v1/models/m:predict", b'{"instances":[[1,2,3]]}'),
        "generate": request_bytes("POST", "/v2/models/t/generate", b'{"text_input":"a"}'),
        "clouds": request_bytes("POST", "/invocations", head + bytes(12), target),
        "index": request_bytes("POST", "/v2/repository/index", b"{}"),
        "metadata": request_bytes("GET", "/v2/models/m/versions/1?a=b") + request_bytes("HEAD", "/v2"),
        "expect": request_bytes("POST", infer, body, {"Expect": "100-continue"}),
        "upgrade": request_bytes("GET", "/v2", b"", {"Upgrade": "h2c", "Connection": "upgrade"}),
        "old": b"GET /v2/health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /metrics HTTP/1.0\r\n\r\n",
        "many": request_bytes("POST", infer, body) * 6 + request_bytes("GET", "/nothing"),
        "zipped": request_bytes("POST", "/model", b"\x1f\x8b\x08", {"Content-Encoding": "gzip"}),
    }
    return {name: len(name).to_bytes(2, "little") + stream for name, stream in streams.items()}
