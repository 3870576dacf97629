"""An open-loop load: requests start on a timetable, whether or not earlier ones have been answered, and none is ever
retried.

The demo and the end-to-end tests use it to show that a rollout loses nothing. `python examples/digits/load.py URL
--rate 200`. Half of the requests use kept-alive connections, half a new connection each: they fail in different ways
when a pod goes away.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp


@dataclass
class Tally:
    """Counts so far: `answers` by status, `failures` by what happened, `versions` by what the answers said of
    themselves.
    """

    sent: int = 0
    answers: collections.Counter[int] = field(default_factory=collections.Counter)
    failures: collections.Counter[str] = field(default_factory=collections.Counter)
    versions: collections.Counter[str] = field(default_factory=collections.Counter)
    latencies: list[float] = field(default_factory=list)
    """Seconds, of answered requests, from the timetable's moment on."""
    opened: int = 0
    """New connections."""
    reused: int = 0
    """Requests that came over a connection that had carried others before."""

    @property
    def lost(self) -> int:
        return sum(self.failures.values()) + sum(n for status, n in self.answers.items() if status != 200)


@dataclass(frozen=True)
class Load:
    url: str
    body: bytes
    rate: float
    """Requests per second."""
    limit: int
    """Requests in all; the load ends by itself."""
    timeout: float = 30.0
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)


async def run(load: Load, tally: Tally, stop: Callable[[], bool] = lambda: False) -> Tally:
    """Sends until `limit` or until `stop()`; waits for every answer."""
    timeout = aiohttp.ClientTimeout(total=load.timeout)
    kept = aiohttp.TCPConnector(limit=64, keepalive_timeout=60)
    fresh = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        aiohttp.ClientSession(connector=kept, timeout=timeout, trace_configs=[_counting(tally)]) as first,
        aiohttp.ClientSession(connector=fresh, timeout=timeout, trace_configs=[_counting(tally)]) as second,
    ):
        begin, flying = time.monotonic(), set[asyncio.Task[None]]()
        for n in range(load.limit):
            if stop():
                break
            due = begin + n / load.rate
            if (pause := due - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            task = asyncio.create_task(_one(second if n % 2 else first, load, tally, due))
            flying.add(task)
            task.add_done_callback(flying.discard)
        await asyncio.gather(*flying)
    return tally


def _counting(tally: Tally) -> aiohttp.TraceConfig:
    async def opened(*_: object) -> None:
        tally.opened += 1

    async def reused(*_: object) -> None:
        tally.reused += 1

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(opened)
    trace.on_connection_reuseconn.append(reused)
    return trace


async def _one(session: aiohttp.ClientSession, load: Load, tally: Tally, due: float) -> None:
    tally.sent += 1
    try:
        # aiohttp repeats an idempotent request on a dropped kept connection; POST it never repeats.
        async with session.post(load.url, data=load.body, headers=dict(load.headers)) as response:
            answer = await response.json()
            tally.answers[response.status] += 1
            if response.status == 200:
                tally.versions[answer.get("model_version", "?")] += 1
            tally.latencies.append(time.monotonic() - due)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        tally.failures[f"{type(error).__name__}: {error}"[:120]] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--body", default='{"inputs": []}')
    args = parser.parse_args()
    tally = asyncio.run(run(Load(args.url, args.body.encode(), args.rate, args.limit), Tally()))
    print(
        f"{tally.sent} sent, {tally.lost} lost, {dict(tally.answers)}, {dict(tally.failures)}, {dict(tally.versions)}"
    )


if __name__ == "__main__":
    main()
