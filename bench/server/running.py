"""A contestant that runs: started on its cores, ready once it answers rightly, ended with all that it started."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from bench import processes
from bench.server.client.load import Load, Request
from bench.server.contestants import Contestant, Place
from bench.server.cores import Cores, pinned
from bench.server.environments import NotInstallable
from bench.server.generator import Measurement, measure
from bench.server.truth import Truth
from bench.server.wires import Wire
from modelpier_cluster.guarded import free_ports

START_SECONDS = 120.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.05
TAIL = 600


class NotRunning(RuntimeError):  # noqa: N818 - the reason why somebody is left out
    """It did not come up, or cannot be installed."""


class Running:
    """Raises NotRunning."""

    def __init__(self, contestant: Contestant, models: Mapping[str, Path], folder: Path, cores: Cores) -> None:
        self.contestant = contestant
        self._cores = cores
        self._log = folder / "log"
        folder.mkdir(parents=True, exist_ok=True)
        http_port, grpc_port, third = free_ports(3)
        self._ports = (http_port, grpc_port)
        place = Place((http_port, grpc_port, third), models, folder, len(cores.server))
        try:
            start = contestant.start(place)
        except NotInstallable as error:
            raise NotRunning(f"cannot be installed: {error}") from error
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "MODELPIER_", "AWS_"))}
        self.started = time.monotonic()
        with self._log.open("wb") as log, pinned(cores.server):
            self._process = subprocess.Popen(
                start.command,
                env={**environment, "ORT_DISABLE_TELEMETRY": "1", **start.environment},
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def until_ready(self, model: str, truth: Truth) -> None:
        """Its first right answer. Raises NotRunning."""
        wire = self.contestant.wires[model][0]
        request = self.contestant.request(wire, model, truth.feeds(model))
        end, last = time.monotonic() + START_SECONDS, "no answer"
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise NotRunning(f"ended with status {self._process.returncode}: {self.tail()}")
            status, body = self.call(request.method, request.path, request.bodies[0], request.headers)
            if status == 200 and (not self.contestant.checked or truth.agrees(model, 0, wire, body)):
                return
            last = f"{status} {body[:200]!r}" if status else last
            time.sleep(POLL_SECONDS)
        self.stop()
        raise NotRunning(f"not ready after {START_SECONDS:.0f} s: {last}; {self.tail()}")

    def call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """(status, body); status 0 when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self._ports[0], timeout=10)
        try:
            connection.request(method, path, body or None, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def load(self, request: Request, concurrency: int, seconds: float) -> Load:
        port = self._ports[request.wire == "grpc"]
        return Load(port, request, concurrency, seconds, core=self._cores.client)

    def measure(self, wire: Wire, model: str, truth: Truth, concurrency: int, seconds: float) -> Measurement:
        request = self.contestant.request(wire, model, truth.feeds(model))
        return measure(self.load(request, concurrency, seconds), self.pid)

    def statistics(self, model: str) -> Mapping[str, Any] | None:
        """Triton's, where the server has them."""
        status, body = self.call("GET", f"/v2/models/{model}/stats")
        found = orjson.loads(body) if status == 200 else {}
        return found["model_stats"][0] if "model_stats" in found else None

    def tail(self) -> str:
        """The end of its log."""
        return " ".join(self._log.read_text(errors="replace")[-TAIL:].split())

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for whatever is left of it: some leave processes behind, some never end."""
        started = processes.tree(self.pid)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
