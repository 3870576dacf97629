"""A server in the test's own event loop, and a client that sends exactly the bytes that it is told to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelpier_server import runtime, transport
from modelpier_server.contract import ModelReport, ModelState, Options, PlannedModel
from modelpier_server.errors import NotFound, Unavailable
from modelpier_server.scheduler import Servable, Turns
from modelpier_server.scheduler.probe import Finding
from modelpier_server.telemetry import Metrics
from support import onnx_models
from support.sessions import Wrapped

PATIENCE = 20.0
"""Seconds after which a test gives up; nothing here takes more than a fraction."""


def planned(name: str = "m", **options: Any) -> PlannedModel:
    """`limits`, `batching`, `instances`, `threads` go into its options; `version` into itself."""
    version = str(options.pop("version", "1"))
    return PlannedModel(
        name=name,
        revision=f"{name}-r1",
        version=version,
        uri=f"file:///{name}.onnx",
        options=Options(**options),
    )


def servable(
    model: bytes,
    folder: Path,
    plan: PlannedModel | None = None,
    metrics: Metrics | None = None,
    turns: Turns | None = None,
) -> Servable:
    """A model loaded and warmed up."""
    plan = plan or planned()
    path = onnx_models.write(model, folder / f"{plan.name}-{plan.version}.onnx")
    served = Servable(runtime.load(path, plan.options), plan, metrics or Metrics(), turns)
    served.warm_up()
    return served


class Gated(Wrapped):
    """A session whose runs wait until the gate opens."""

    def __init__(self, session: runtime.Session) -> None:
        super().__init__(session)
        self.gate = threading.Event()
        self.runs: list[int] = []
        """Rows of the first input of each run, in the order of their starts."""

    def run(
        self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], control: runtime.Control | None = None
    ) -> list[np.ndarray]:
        self.runs.append(next(iter(feeds.values())).shape[0])
        assert self.gate.wait(PATIENCE)
        return super().run(feeds, outputs, control)


def gated(model: bytes, folder: Path, plan: PlannedModel | None = None, rows: int = 0) -> tuple[Servable, Gated]:
    """A servable that runs on threads, behind a gate; `rows`: how many a run may hold."""
    plan = plan or planned(instances=1)
    path = onnx_models.write(model, folder / f"{plan.name}-{plan.version}.onnx")
    session = Gated(runtime.load(path, plan.options))
    served = Servable(session, plan, Metrics())
    served.finding = Finding(rows, "by the test")
    return served, session


def threaded(model: bytes, folder: Path, plan: PlannedModel | None = None, rows: int = 0) -> Servable:
    """As `gated`, without a gate: the runs of the real session."""
    plan = plan or planned(instances=1)
    path = onnx_models.write(model, folder / f"{plan.name}-{plan.version}.onnx")
    served = Servable(runtime.load(path, plan.options), plan, Metrics())
    served.finding = Finding(rows, "by the test")
    return served


@dataclass
class Shelf:
    """A catalog of what it is given."""

    servables: dict[str, Servable] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    ready: bool = True
    live: bool = True
    draining: bool = False
    watchers: set[Callable[[], None]] = field(default_factory=set)
    found: int = 0
    """Calls of `find`, each of which takes a turn of the weights."""

    def find(self, name: str, version: str | None = None) -> Servable:
        self.found += 1
        if name in self.pending:
            raise Unavailable(f"model '{name}' is not ready yet")
        found = self.servables.get(name)
        if found is None or version not in {None, found.version}:
            raise NotFound(f"model '{name}' version '{version}' is not served here")
        return found

    def max_body_bytes(self) -> int:
        return max((s.limits.max_body_bytes for s in self.servables.values()), default=1000)

    def names(self) -> list[str]:
        return list(self.servables)

    def serving(self) -> list[Servable]:
        return list(self.servables.values())

    def describe(self) -> list[ModelReport]:
        return [
            ModelReport(
                s.name,
                s.revision,
                s.version,
                ModelState.READY,
                inputs=s.session.inputs,
                outputs=s.session.outputs,
                batching=s.batching,
            )
            for s in self.servables.values()
        ]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """Text of an error; fails where the body is no error as the protocol says."""
        value = json.loads(self.body)
        assert list(value) == ["error"]
        assert self.headers["content-type"] == "application/json"
        return str(value["error"])


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await asyncio.wait_for(self.writer.drain(), PATIENCE)

    async def answer(self, *, head: bool = False) -> Answer:
        """The next answer; raises IncompleteReadError when the server closed instead."""
        start = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)
        lines = start.decode("latin-1").split("\r\n")
        headers = {}
        for line in filter(None, lines[1:]):
            name, value = line.split(":", 1)
            assert name.lower() not in headers, f"{name} is there twice"
            headers[name.lower()] = value.strip()
        length = 0 if head else int(headers.get("content-length", "0"))
        body = await asyncio.wait_for(self.reader.readexactly(length), PATIENCE)
        return Answer(int(lines[0].split()[1]), headers, body)

    async def closed(self) -> bool:
        """Whether the server closes, without a further byte."""
        try:
            return await asyncio.wait_for(self.reader.read(1), PATIENCE) == b""
        except ConnectionResetError:
            return True

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, object] | None = None
    ) -> Answer:
        await self.send(request_bytes(method, path, body, headers))
        return await self.answer(head=method == "HEAD")

    async def infer(self, message: object, model: str = "m", headers: Mapping[str, object] | None = None) -> Answer:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        return await self.request("POST", f"/v2/models/{model}/infer", body, headers)

    def close(self) -> None:
        self.writer.close()


def request_bytes(method: str, path: str, body: bytes = b"", headers: Mapping[str, object] | None = None) -> bytes:
    fields = {"Host": "test", **(headers or {})}
    if body or method in {"POST", "PUT"}:
        fields.setdefault("Content-Length", len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def tensor(data: object, *, name: str = "x", shape: object = None, datatype: str = "FP32") -> dict[str, object]:
    """One entry of `inputs`."""
    return {"name": name, "shape": [1, 3] if shape is None else shape, "datatype": datatype, "data": data}


@dataclass
class Running:
    server: transport.Server
    shelf: Shelf
    metrics: Metrics
    clients: list[Client] = field(default_factory=list)

    async def client(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port, limit=1 << 26)
        self.clients.append(Client(reader, writer))
        return self.clients[-1]


@asynccontextmanager
async def running(
    *servables: Servable,
    limits: transport.HttpLimits | None = None,
    metrics: Metrics | None = None,
    extras: transport.Extras | None = None,
) -> AsyncIterator[Running]:
    """A listening server of these models; all of it is gone at the end."""
    metrics = metrics or Metrics()
    shelf = Shelf({served.name: served for served in servables})
    app = transport.inference_app(shelf, metrics, extras)
    server = await transport.serve("127.0.0.1", 0, app, limits)
    state = Running(server, shelf, metrics)
    try:
        yield state
    finally:
        for client in state.clients:
            client.close()
        await server.stop(0.2)
        for served in shelf.servables.values():
            served.close()


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Waits for a condition instead of for a time."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end, "the condition did not come true in time"
        await asyncio.sleep(0.005)
