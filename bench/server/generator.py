"""Runs the load generator against a server and reads meanwhile what the server costs. Used by rounds and singles."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.processes import Clock, foreign_cores, spent
from bench.server.client.load import Load, Outcome

ROOT = Path(__file__).resolve().parents[2]
OVERTIME = 90.0
"""Seconds beyond its own that a generator may take: a server that has stalled is given up by the generator first."""


class GeneratorError(RuntimeError):
    """The text is the end of what it said."""


@dataclass(frozen=True)
class Measurement:
    outcome: Outcome
    server_cpu: float
    """Seconds that the server's processes took."""
    foreign_cores: float

    @property
    def cpu_per_request(self) -> float:
        """Microseconds of the server per answer, good or bad."""
        count = sum(found.count for found in self.outcome.latencies.values())
        return 1e6 * self.server_cpu / count if count else 0.0


class Generator:
    """One run. `begin` returns when the warm-up is over, `finish` when all is measured."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.server.client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(load.encode())
        self._process.stdin.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, word: str) -> None:
        assert self._process.stdout is not None
        if (line := self._process.stdout.readline().strip()) != word:
            self._process.kill()
            self._process.wait()
            raise GeneratorError(f"the load generator said {line!r} in place of {word!r}")

    def finish(self) -> Outcome:
        assert self._process.stdout is not None
        text = self._process.stdout.read()
        if self._process.wait(OVERTIME):
            raise GeneratorError(text[-500:])
        return Outcome.decode(text)


def measure(load: Load, server: int) -> Measurement:
    """`server`: the pid at the root of its processes. Raises GeneratorError."""
    generator = Generator(load)
    pids = {"server": server, "client": generator.pid, "bench": os.getpid()}
    generator.wait_for("begin")
    begin = Clock.now(time.monotonic(), pids)
    generator.wait_for("end")
    end = Clock.now(time.monotonic(), pids)
    return Measurement(generator.finish(), spent(begin, end)["server"], foreign_cores(begin, end))
