"""Open-loop loads against a served model, and the judgement whether each request was answered. Used by the tests of
rollouts and of kills.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from digits.load import Load, Tally, run
from e2e.world import World

LIMIT = 100_000
"""More than any test sends: a load ends with its block."""


def infer_body(pixels: list[float]) -> bytes:
    return json.dumps({"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": pixels}]}).encode()


@contextmanager
def load(world: World, name: str, namespace: str, pixels: list[float], rate: float) -> Iterator[Tally]:
    """A steady load, from a thread, for as long as the block takes; every answer is waited for."""
    url = f"{world.service_url(name, namespace)}/v2/models/{name}/infer"
    tally, done = Tally(), threading.Event()
    order = Load(url, infer_body(pixels), rate, LIMIT)
    thread = threading.Thread(target=lambda: asyncio.run(run(order, tally, done.is_set)))
    thread.start()
    try:
        world.wait(lambda: tally.answers[200] >= 2 * rate, "a steady load", 30)
        yield tally
    finally:
        done.set()
        thread.join(timeout=120)


def assert_nothing_lost(tally: Tally, at_least: int) -> None:
    """Each request was answered with 200, over kept connections as well as over new ones."""
    assert dict(tally.answers) == {200: tally.sent}, f"{tally.sent} sent: {tally.answers} {tally.failures}"
    assert tally.sent >= at_least
    assert tally.reused > tally.sent / 3, f"{tally.reused} of {tally.sent} over kept connections"
    assert tally.opened > tally.sent / 3, f"{tally.opened} new connections for {tally.sent} requests"
