"""The event loop's time, shared by all models of a process.

Runs of very short models take place on the loop. One with a flood of requests must neither keep the loop from reading
and writing nor the other models from their runs: each gets the same time per round (deficit round robin: what it used
beyond its share is taken off the next one), and after a few rounds the loop looks at its sockets again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Protocol

from modelpier_server.scheduler.guard import Guard

QUANTUM_NS = 400_000
"""Of one model per round: no single run is expected to take longer (`placement.LOOP_LIMIT`)."""
BUDGET_NS = 1_000_000
"""Of all models until the loop gets to its sockets."""

log = logging.getLogger(__name__)
_clock = time.perf_counter_ns


class Member(Protocol):
    """A model with runs to start."""

    def turn(self, quantum: int) -> bool:
        """Starts what can be started within `quantum` nanoseconds on the loop; whether runs on the loop are left."""


class Turns:
    """One per event loop, which alone touches it."""

    def __init__(self) -> None:
        self.guard = Guard()
        self._ring: deque[Member] = deque()
        self._due = False

    def ask(self, member: Member, loop: asyncio.AbstractEventLoop) -> None:
        """`member` has a turn soon: after the rest of what this iteration of the loop does. It asks once until then."""
        self._ring.append(member)
        if not self._due:
            self._due = True
            loop.call_soon(self._go, loop)

    def _go(self, loop: asyncio.AbstractEventLoop) -> None:
        ring, end = self._ring, 0
        while ring:
            member = ring.popleft()
            try:
                if member.turn(QUANTUM_NS):
                    ring.append(member)
            except Exception:  # an edge: one model's mistake must not end the turns of the others
                log.exception("a model's turn failed")
            if ring:
                now = _clock()
                end = end or now + BUDGET_NS
                if now >= end:
                    loop.call_soon(self._go, loop)
                    return
        self._due = False
