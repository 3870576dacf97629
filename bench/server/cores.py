"""Which cores the server gets and which the load generator: three and one, or what there is. Used by everything here.

A server with other than three cores, or a generator that shares one, gives figures that cannot be compared with those
that the targets were set for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

WANTED = 3
"""Cores of the server."""


@dataclass(frozen=True)
class Cores:
    server: frozenset[int]
    client: int | None
    """None: it shares the server's."""

    @property
    def comparable(self) -> bool:
        return len(self.server) == WANTED and self.client is not None


def divide(available: set[int]) -> Cores:
    """The last one is the generator's."""
    *first, last = sorted(available)
    return Cores(frozenset(first[:WANTED]), last) if first else Cores(frozenset({last}), None)


def cores() -> Cores:
    return divide(os.sched_getaffinity(0))


@contextmanager
def pinned(to: frozenset[int]) -> Iterator[None]:
    """What is started meanwhile runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, to)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
