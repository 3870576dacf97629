"""The phases of a run, in their order: a burst of creations, rest, reactions, a restart. Used by __main__.py."""

from __future__ import annotations

import asyncio
import math
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from bench import processes
from bench.operator import kinds
from bench.operator.api import MERGE_PATCH, Api
from bench.operator.arena import Arena
from bench.operator.contestants import Contestant, RunningContestant
from bench.operator.observer import Settling, late_children, objects
from bench.operator.requests import Traffic
from bench.processes import Clock, foreign_cores, spent

BURST_SECONDS = 30.0
BURST_SECONDS_EACH = 0.15
"""A burst is given up after the two together, the second for each ModelDeployment."""
QUIET_SECONDS = 60.0
REACTION_SECONDS = 20.0
BETWEEN_REACTIONS = 0.15
"""Pause between two reactions, so that each meets an idle contestant."""


@dataclass(frozen=True)
class Cost:
    """What an interval cost: CPU seconds by process, cores that others kept busy, requests."""

    seconds: float
    cpu: Mapping[str, float]
    foreign_cores: float
    writes: int
    reads: int
    lists: int
    requests: Mapping[str, int]
    refused: Mapping[str, int]

    @classmethod
    def of(cls, clocks: tuple[Clock, Clock], traffic: Traffic, seconds: float) -> Cost:
        return cls(
            seconds=seconds,
            cpu=spent(*clocks),
            foreign_cores=foreign_cores(*clocks),
            writes=traffic.writes(),
            reads=traffic.reads(),
            lists=traffic.lists(),
            requests=traffic.table(),
            refused=traffic.refused(),
        )


@dataclass(frozen=True)
class Burst:
    """`cost.seconds`: from the first creation until the last ModelDeployment had its children and status."""

    count: int
    cost: Cost
    resident: Mapping[str, float]
    """MiB."""
    settle_p50: float
    settle_p95: float
    """Seconds from a ModelDeployment's creation to its status, amid the burst."""


async def burst(arena: Arena, running: RunningContestant, count: int) -> Burst:
    """Raises RuntimeError when a status claimed children that were not there."""
    settling = Settling(arena.api, count)
    await settling.start()
    with _loader(arena, count) as loader:
        position, clock = arena.position(), arena.clock(contestant=running.pid, loader=loader.pid)
        _let_go(loader)
        try:
            done = await settling.wait(BURST_SECONDS + BURST_SECONDS_EACH * count, running.check)
        except TimeoutError as error:
            raise TimeoutError(f"{error}. {running.name} said last:\n{running.tail()}") from error
        # The loader's CPU is read while it can be: the kernel forgets it with the process.
        end = arena.clock(contestant=running.pid, loader=loader.pid)
    quiet = await arena.quiet(running, QUIET_SECONDS)
    traffic = await arena.traffic(position)
    if late := late_children(await objects(arena.api)):
        raise RuntimeError(f"{len(late)} children were missing or changed after the status, such as {late[0]}")
    cost = Cost.of((clock, end), traffic, done - clock.at)
    # Work that was put off is work: the contestant's CPU counts until it is quiet.
    whole = quiet.clock.processes["contestant"] - clock.processes["contestant"]
    latencies = settling.latencies()
    return Burst(
        count,
        replace(cost, cpu={**cost.cpu, "contestant": whole}),
        {"contestant": processes.resident_mebibytes(running.pid), **arena.resident()},
        percentile(latencies, 0.5),
        percentile(latencies, 0.95),
    )


def _loader(arena: Arena, count: int) -> subprocess.Popen[str]:
    """Started and connected, waiting for the word."""
    command = [sys.executable, "-m", "bench.operator.loader", str(arena.kubeconfig), str(count)]
    loader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if loader.stdout is None or loader.stdout.readline() != "ready\n":
        raise RuntimeError("the loader could not reach the API server")
    return loader


def _let_go(loader: subprocess.Popen[str]) -> None:
    if loader.stdin is None:
        raise RuntimeError("the loader has no standard input")
    loader.stdin.write("go\n")
    loader.stdin.flush()


async def rest(arena: Arena, running: RunningContestant, seconds: float) -> Cost:
    """What it does when there is nothing to do."""
    position, clock = arena.position(), arena.clock(contestant=running.pid)
    await asyncio.sleep(seconds)
    running.check()
    end = arena.clock(contestant=running.pid)
    return Cost.of((clock, end), await arena.traffic(position), seconds)


async def restart(arena: Arena, running: RunningContestant, contestant: Contestant) -> tuple[Cost, RunningContestant]:
    """Stop it, start it again over what exists. CPU from the start of the process, with all that it imports."""
    await asyncio.to_thread(running.stop)
    position, clock = arena.position(), arena.clock()
    again = await arena.start(contestant)
    quiet = await arena.quiet(again, QUIET_SECONDS)
    begin = Clock(clock.at, {**clock.processes, "contestant": 0.0}, clock.machine)
    return Cost.of((begin, quiet.clock), await arena.traffic(position), quiet.since - again.started), again


@dataclass(frozen=True)
class Reactions:
    """Milliseconds, ascending, from sending the change to seeing the answer in a watch."""

    patched: list[float]
    """spec.replicas of a ModelDeployment -> its Deployment."""
    recreated: list[float]
    """Deployment deleted -> there again."""


async def reactions(arena: Arena, running: RunningContestant, count: int, repetitions: int) -> Reactions:
    chosen = random.Random(count).sample(range(count), min(repetitions, count))
    _, version = await arena.api.list(kinds.DEPLOYMENTS, kinds.OWNER_LABEL)
    patched, recreated = [], []
    async with Api(arena.api.access) as watcher, aclosing(_deployments(watcher, version)) as changes:
        for number in chosen:
            running.check()
            patched.append(await _patched(arena.api, changes, kinds.name_of(number)))
            await asyncio.sleep(BETWEEN_REACTIONS)
            recreated.append(await _recreated(arena.api, changes, kinds.name_of(number)))
            await asyncio.sleep(BETWEEN_REACTIONS)
    return Reactions(sorted(patched), sorted(recreated))


Change = tuple[float, str, Mapping[str, Any]]


async def _deployments(api: Api, version: str) -> AsyncGenerator[Change, None]:
    async with aclosing(api.watch(kinds.DEPLOYMENTS, version, kinds.OWNER_LABEL)) as events:
        async for kind, deployment in events:
            yield time.perf_counter(), kind, deployment


async def _patched(api: Api, changes: AsyncIterator[Change], name: str) -> float:
    replicas = kinds.REPLICAS + 1
    begin = time.perf_counter()
    await api.send("PATCH", f"{kinds.MODEL_DEPLOYMENTS}/{name}", {"spec": {"replicas": replicas}}, MERGE_PATCH)
    return await _seen(changes, name, begin, lambda kind, d: kind == "MODIFIED" and d["spec"]["replicas"] == replicas)


async def _recreated(api: Api, changes: AsyncIterator[Change], name: str) -> float:
    items, _ = await api.list(kinds.DEPLOYMENTS, f"{kinds.OWNER_LABEL}={name}")
    begin = time.perf_counter()
    await api.send("DELETE", f"{kinds.DEPLOYMENTS}/{items[0]['metadata']['name']}")
    return await _seen(changes, name, begin, lambda kind, _: kind == "ADDED")


async def _seen(
    changes: AsyncIterator[Change], name: str, begin: float, wanted: Callable[[str, Mapping[str, Any]], bool]
) -> float:
    """Milliseconds from `begin`; raises TimeoutError."""
    others: Counter[str] = Counter()
    try:
        async with asyncio.timeout(REACTION_SECONDS):
            async for at, kind, deployment in changes:
                if deployment["metadata"]["labels"][kinds.OWNER_LABEL] == name and wanted(kind, deployment):
                    return (at - begin) * 1000
                others[f"{kind} {deployment['metadata']['name']}"] += 1
    except TimeoutError as error:
        raise TimeoutError(f"no reaction at {name} in {REACTION_SECONDS:.0f} s, only {dict(others)}") from error
    raise RuntimeError("the API server ended the watch of the Deployments")


def percentile(ascending: list[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed (nearest rank)."""
    return ascending[max(0, math.ceil(len(ascending) * share) - 1)]
