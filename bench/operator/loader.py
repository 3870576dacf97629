"""Creates ModelDeployments at full speed: `python -m bench.operator.loader`, a process of its own, whose CPU is known.

Started by phases.py. It connects, writes one line, waits for one line on its standard input, and then lets go.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import uvloop
from bench.operator import kinds
from bench.operator.api import Access, Api

AT_ONCE = 16


async def load(kubeconfig: Path, count: int) -> None:
    async with Api(Access.of(kubeconfig), connections=AT_ONCE) as api:
        await api.text("/readyz")
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        numbers = iter(range(count))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(_worker(api, numbers))


async def _worker(api: Api, numbers: Iterator[int]) -> None:
    for number in numbers:  # one iterator, shared: each number is taken once
        await api.send("POST", kinds.MODEL_DEPLOYMENTS, kinds.model_deployment(number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kubeconfig", type=Path)
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    uvloop.run(load(arguments.kubeconfig, arguments.count))


if __name__ == "__main__":
    main()
