"""`python -m bench.server.raw FILE MODEL WORKERS THREADS ROWS SECONDS`: what ONNX Runtime does in one process, without
any server: the limit. Prints a Rate.

WORKERS Python threads share one session (its runs take place without the GIL); THREADS of ONNX Runtime for each run.
`Limit` looks for the best layout and measures it again in every round. Used by rounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import onnxruntime as ort

from bench.server.cores import pinned
from bench.server.feeds import feeds

ROOT = Path(__file__).resolve().parents[2]
SCAN_SECONDS = 2.0


@dataclass(frozen=True)
class Layout:
    workers: int
    threads: int
    rows: int

    def __str__(self) -> str:
        return f"{self.workers} x {self.threads} threads, {self.rows} rows"


@dataclass(frozen=True)
class Rate:
    items: float
    """Rows per second."""
    cpu: float
    """Microseconds per row."""


def layouts(model: str, cores: int) -> list[Layout]:
    """Those that were ever best somewhere. Of the small model one row is asked for: that is what a request has."""
    if model == "tabular":
        return [Layout(1, 1, 1)]
    apart = [Layout(cores, 1, rows) for rows in (1, 2, 4)]
    return apart if cores == 1 else [*apart, Layout(1, cores, 1), Layout(1, cores, 8)]


class Limit:
    """The best layout of one model on the server's cores."""

    def __init__(self, file: Path, model: str, cores: frozenset[int]) -> None:
        self._file = file
        self._model = model
        self._cores = cores
        found = {layout: self._run(layout, SCAN_SECONDS).items for layout in layouts(model, len(cores))}
        self.layout = max(found, key=lambda layout: found[layout])

    def measure(self, seconds: float) -> Rate:
        return self._run(self.layout, seconds)

    def _run(self, layout: Layout, seconds: float) -> Rate:
        numbers = (layout.workers, layout.threads, layout.rows, seconds)
        command = [sys.executable, "-m", "bench.server.raw", str(self._file), self._model, *map(str, numbers)]
        with pinned(self._cores):
            found = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=True, cwd=ROOT)
        return Rate(**json.loads(found.stdout))


def run(file: str, model: str, layout: Layout, seconds: float) -> Rate:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = layout.threads, 1
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    given = feeds(model, rows=layout.rows)
    counts = [0] * layout.workers
    for _ in range(3):
        session.run(None, given)
    begin, cpu = time.monotonic(), time.process_time()
    end = begin + seconds

    def work(number: int) -> None:
        while time.monotonic() < end:
            session.run(None, given)
            counts[number] += layout.rows

    threads = [threading.Thread(target=work, args=(number,)) for number in range(layout.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Rate(sum(counts) / (time.monotonic() - begin), 1e6 * (time.process_time() - cpu) / sum(counts))


def main() -> None:
    file, model, workers, threads, rows, seconds = sys.argv[1:]
    print(json.dumps(asdict(run(file, model, Layout(int(workers), int(threads), int(rows)), float(seconds)))))


if __name__ == "__main__":
    main()
