"""What is measured of our server alone: batching without load, overload, large bodies, start and memory.

Each function returns figures by name; targets.py knows the names. Used by __main__.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench import processes
from bench.server.arena import Arena
from bench.server.client.load import Load, Outcome
from bench.server.contestants import ours
from bench.server.cores import pinned
from bench.server.generator import ROOT, Generator
from bench.server.running import Running
from bench.server.wires import OipJson
from modelpier_server.contract import Batching, Limits, Options

Figures = dict[str, float]
BOUND = 32
"""Requests that may wait in the overloaded server: half of what the comparison has under way."""
OVERLOAD_SECONDS = 30.0
STARTS = 5
READY_SECONDS = 60.0
LOOK_SECONDS = 0.004
"""Between two looks whether the server is ready."""


def batching(arena: Arena) -> Figures:
    """One client alone, with batching and without."""
    on, off = ours("batching on", Options()), ours("batching off", Options(batching=Batching(enabled=False)))
    found: dict[str, list[float]] = {"batching on, p50": [], "batching off, p50": []}
    with arena.running(on, "tabular") as first, arena.running(off, "tabular") as second:
        for _ in range(arena.rounds):
            for name, one in zip(found, (first, second), strict=True):
                measured = one.measure(OipJson(), "tabular", arena.truth, 1, arena.seconds / 2)
                found[name].append(measured.outcome.answered.percentile(0.5))
    return {name: median(values) for name, values in found.items()}


def overload(arena: Arena, model: str) -> Figures:
    """A bounded queue with four times as many clients as in the comparison."""
    contestant = ours("bounded", Options(limits=Limits(max_queue=BOUND)))
    seconds = min(OVERLOAD_SECONDS, 3 * arena.seconds)
    with arena.running(contestant, model) as one:
        wire = contestant.wires[model][0]
        usual = one.measure(wire, model, arena.truth, 64, seconds / 3).outcome
        found = one.measure(wire, model, arena.truth, 256, seconds).outcome
    other = {status: count for status, count in found.other.items() if status != 429}
    return {
        f"overload {model}, p99 at 64": usual.answered.percentile(0.99),
        f"overload {model}, p99 at 256": found.answered.percentile(0.99),
        f"overload {model}, accepted per second": found.rate,
        f"overload {model}, 429": float(found.other.get(429, 0)),
        f"overload {model}, 429 without Retry-After": float(found.hasty),
        f"overload {model}, other answers": float(sum(other.values())),
        f"overload {model}, resets": float(found.resets + usual.resets),
        f"overload {model}, wrong": float(arena.truth.wrong(model, wire, found.samples)),
    }


def large_bodies(arena: Arena) -> Figures:
    """Small requests, alone and beside bodies of 1.6 MB on the same server."""
    contestant, wire = ours(), OipJson()
    with arena.running(contestant, "tabular", "wide") as one:
        small = one.load(contestant.request(wire, "tabular", arena.truth.feeds("tabular")), 4, arena.seconds)
        large = one.load(contestant.request(wire, "wide", arena.truth.feeds("wide")), 1, arena.seconds)
        alone = _run(small)[0]
        beside, bodies = _run(small, large)
    return {
        "large bodies, size": len(large.request.bodies[0]) / 1e6,
        "large bodies, rate": bodies.rate,
        "large bodies, p50": bodies.answered.percentile(0.5),
        "large bodies, wrong": float(arena.truth.wrong("wide", wire, bodies.samples)),
        "small requests alone, p99": alone.answered.percentile(0.99),
        "small requests beside large bodies, p50": beside.answered.percentile(0.5),
        "small requests beside large bodies, p99": beside.answered.percentile(0.99),
        "small requests beside large bodies, most": beside.answered.most,
        "small requests beside large bodies, failed": float(sum(beside.other.values()) + beside.resets),
    }


def _run(*loads: Load) -> list[Outcome]:
    """Side by side."""
    generators = [Generator(load) for load in loads]
    for word in ("begin", "end"):
        for generator in generators:
            generator.wait_for(word)
    return [generator.finish() for generator in generators]


def starts(arena: Arena, model: str) -> Figures:
    """From the process's start until it is ready, with an empty model cache, and a session's in turn."""
    path = arena.files(model)[model]
    server: list[float] = []
    session: list[float] = []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory(prefix="modelpier-bench-") as folder:
            server.append(_until_ready(arena, model, Path(folder)))
        session.append(_alone(arena, path, model)[0])
    return {f"start {model}": median(server), f"start {model}, session": median(session)}


def starts_again(arena: Arena, model: str) -> Figures:
    """With the model cache of earlier starts: the second writes the optimised graph, later ones may use it."""
    with tempfile.TemporaryDirectory(prefix="modelpier-bench-") as folder:
        seconds = [_until_ready(arena, model, Path(folder)) for _ in range(STARTS)]
    return {f"start {model}, again": median(seconds[2:])}


def _until_ready(arena: Arena, model: str, folder: Path) -> float:
    one = Running(ours(grpc=False), arena.files(model), folder, arena.cores)
    try:
        _wait(lambda: one.call("GET", "/v2/health/ready")[0] == 200, one)
        return time.monotonic() - one.started
    finally:
        one.stop()


def _wait(condition: Callable[[], bool], one: Running) -> None:
    end = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not ready after {READY_SECONDS:.0f} s: {one.tail()}")
        time.sleep(LOOK_SECONDS)


def memory(arena: Arena, model: str) -> Figures:
    """Resident, after load."""
    with arena.running(ours(grpc=False), model) as one:
        one.measure(OipJson(), model, arena.truth, 1, min(2.0, arena.seconds))
        server = processes.resident_mebibytes(one.pid)
    session = _alone(arena, arena.files(model)[model], model)[1]
    return {f"memory {model}": server, f"memory {model}, session": session}


def _alone(arena: Arena, path: Path, model: str) -> tuple[float, float]:
    """(seconds until the session is there, MiB after some runs)."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "bench.server.session_alone", str(path), model]
    with pinned(arena.cores.server):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    ready = process.stdout.readline()
    seconds = time.monotonic() - begin
    rest, _ = process.communicate(timeout=READY_SECONDS)
    if process.returncode or ready.strip() != "ready":
        raise RuntimeError(f"ONNX Runtime alone failed with {path}")
    return seconds, float(rest)


def all_of_them(arena: Arena) -> Figures:
    works: dict[str, Callable[[], Figures]] = {
        "batching without load": lambda: batching(arena),
        "overload, tabular": lambda: overload(arena, "tabular"),
        "overload, image": lambda: overload(arena, "image"),
        "large bodies beside small ones": lambda: large_bodies(arena),
        "starts, small model": lambda: starts(arena, "tabular"),
        "starts, 105 MB model": lambda: {**starts(arena, "large"), **starts_again(arena, "large")},
        "memory": lambda: {**memory(arena, "tabular"), **memory(arena, "large")},
    }
    figures: Figures = {}
    for name, work in works.items():
        arena.progress.say(name)
        figures |= work()
    return figures
