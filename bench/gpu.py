"""What a GPU brings and what CUDA graphs bring on top, as Markdown tables: `make bench-gpu`, on a machine that has one.

First runs alone: the requests of a batch go in one by one, as the scheduler has them, and results come out in this
process's memory. Eager and captured runs alternate in short rounds, so that whatever else the machine does meets both.
Then the server, with load over loopback as `bench/server` makes it, every answer's sample held against a CPU's.
All in FP32 without TF32, so that answers can be compared.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bench.server.arena import Arena, files, truth
from bench.server.contestants import ours
from bench.server.cores import cores
from bench.server.feeds import feeds
from bench.server.generator import GeneratorError
from bench.server.running import NotRunning
from bench.server.wires import OipBinary, OipJson, Wire
from modelpier_cluster.progress import Progress
from modelpier_server.contract import Batching, Options, Provider
from modelpier_server.runtime import Session, load
from modelpier_server.runtime.providers import CUDA
from modelpier_server.runtime.session import Joined

ROWS = {"tabular": (1, 64), "image": (1, 4, 16, 64), "text": (1, 16, 64)}
SERVED: Sequence[tuple[str, Wire, Sequence[int]]] = (
    ("tabular", OipJson(), (1, 64)),
    ("image", OipBinary(), (1, 16, 64)),
    ("text", OipBinary(), (1, 16, 64)),
)
ROUND = 5
"""Runs of one before the other's turn."""
LEAST_RUNS = 30
EAGER = {"use_tf32": "0"}
WAYS = {"eager": EAGER, "captured": {**EAGER, "enable_cuda_graph": "1"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default %(default)s)")
    parser.add_argument("--models", nargs="+", choices=list(ROWS), default=list(ROWS))
    arguments = parser.parse_args()
    if CUDA not in ort.get_available_providers():
        sys.exit("this needs an NVIDIA GPU and onnxruntime-gpu: `make bench-gpu` has the latter")
    print(f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {_machine()}, onnxruntime {ort.__version__}\n")
    print("| model | rows | eager, us | captured, us | eager / captured | graph alone, us |")
    print("|---|---:|---:|---:|---:|---:|")
    for model in arguments.models:
        for rows in ROWS[model]:
            _print_runs(model, rows)
    print("\n| model, request | c | way | requests/s | p50 ms | p99 ms | server's CPU, us | wrong |")
    print("|---|---:|---|---:|---:|---:|---:|---:|")
    arena = Arena(cores(), arguments.seconds, 1, Progress(quiet=True), truth(arguments.models))
    for model, wire, concurrencies in SERVED:
        if model in arguments.models:
            for way, options in WAYS.items():
                _print_served(arena, (model, wire), concurrencies, way, options)


def _machine() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    found = subprocess.run(query, check=True, capture_output=True, text=True, timeout=30).stdout
    return f"{found.splitlines()[0]}, {len(os.sched_getaffinity(0))} CPU cores"


# ------------------------------------------------------------------------------------------ runs
def _print_runs(model: str, rows: int) -> None:
    parts = {name: [array[i : i + 1].copy() for i in range(rows)] for name, array in feeds(model, rows=rows).items()}
    with ExitStack() as stack:
        sessions = {way: stack.enter_context(_loaded(files(model)[model], way, rows)) for way in WAYS}
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(1 + LEAST_RUNS // ROUND):
            for way, session in sessions.items():
                taken = _times(lambda s=session: _run(s, parts))  # type: ignore[misc]
                if number:  # the first ones allocate
                    times[way] += taken
        alone = median(_times(_replay(sessions["captured"]), LEAST_RUNS))
    eager, captured = (1e6 * median(times[way]) for way in WAYS)
    print(
        f"| {model} | {rows} | {eager:.0f} | {captured:.0f} | {eager / captured:.2f} | {1e6 * alone:.0f} |", flush=True
    )


@contextmanager
def _loaded(file: Path, way: str, rows: int) -> Iterator[Session]:
    session = load(file, Options(providers=(Provider(CUDA, WAYS[way]),)))
    try:
        session.prepare(rows)
        yield session
    finally:
        session.close()


def _run(session: Session, parts: Mapping[str, Sequence[npt.NDArray[Any]]]) -> None:
    """As the scheduler runs a batch."""
    given: Mapping[str, npt.NDArray[Any]]
    given = Joined(parts) if session.joins else {name: np.concatenate(part) for name, part in parts.items()}
    session.run(given, [spec.name for spec in session.outputs])


def _replay(session: Any) -> Callable[[], None]:
    """What is left when nothing is copied to the GPU or from it."""
    replay: Callable[[], None] = session._captured.replay  # noqa: SLF001 - of interest to nobody else
    return replay


def _times(action: Callable[[], None], count: int = ROUND) -> list[float]:
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return taken


# ------------------------------------------------------------------------------------------ served
def _print_served(
    arena: Arena, cell: tuple[str, Wire], concurrencies: Sequence[int], way: str, options: Mapping[str, str]
) -> None:
    model, wire = cell
    served = Options(providers=(Provider(CUDA, dict(options)),), batching=Batching(max_rows=64))
    try:
        with arena.running(ours(way, served), model) as one:
            for concurrency in concurrencies:
                found = one.measure(wire, model, arena.truth, concurrency, arena.seconds)
                outcome = found.outcome
                p50, p99 = outcome.answered.percentile(0.5), outcome.answered.percentile(0.99)
                wrong = arena.truth.wrong(model, wire, outcome.samples)
                print(
                    f"| {model}, {wire.name} | {concurrency} | {way} | {outcome.rate:,.0f} | {p50:.2f} | {p99:.2f} | "
                    f"{found.cpu_per_request:.0f} | {wrong} of {len(outcome.samples)} |",
                    flush=True,
                )
    except (NotRunning, GeneratorError) as error:
        print(f"| {model}, {wire.name} | | {way} | {error} | | | | |", flush=True)


if __name__ == "__main__":
    main()
