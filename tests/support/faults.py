"""Stands between the operator and an API server, in memory or real, and spoils requests to order.

`Faulty` is an `Api`. What is refused never reaches the server; what is lost was carried out and nobody told. A crash
cuts the operator off at a write, before or after it: nothing of that process gets through any more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from modelpier_operator.cluster import errors
from modelpier_operator.cluster.client import JSON, Api

Object = dict[str, Any]


class Fault(Enum):
    NONE = "none"
    REFUSED = "503, not carried out"
    THROTTLED = "429, not carried out"
    CONFLICT = "409, not carried out"
    LOST = "carried out, but the answer was lost"
    CRASH_BEFORE = "the operator dies before the write"
    CRASH_AFTER = "the operator dies after the write"


_REFUSALS = {
    Fault.REFUSED: errors.UnavailableError("the server is out of order", status=503),
    Fault.THROTTLED: errors.TooManyRequestsError("later", status=429, retry_after=1.0),
    Fault.CONFLICT: errors.ConflictError("the object has been modified", status=409),
}


@dataclass
class Faulty:
    api: Api
    coming: deque[Fault] = field(default_factory=deque)
    """One for each of the next writes."""
    dead: bool = False
    writes: list[str] = field(default_factory=list)
    """'METHOD path' of each write that was carried out."""
    cut: asyncio.Event = field(default_factory=asyncio.Event)

    def drop_watches(self) -> None:
        """All watches that run now break off."""
        self.cut.set()
        self.cut = asyncio.Event()

    async def get(self, path: str, query: Mapping[str, str] | None = None, *, accept: str = JSON) -> Object:
        self._alive()
        return await self.api.get(path, query, accept=accept)

    async def write(
        self, method: str, path: str, body: Any, *, query: Mapping[str, str] | None = None, content_type: str = JSON
    ) -> Object:
        self._alive()
        fault = self.coming.popleft() if self.coming else Fault.NONE
        if fault in _REFUSALS:
            raise _REFUSALS[fault]
        if fault == Fault.CRASH_BEFORE:
            self._die()
        answer = await self.api.write(method, path, body, query=query, content_type=content_type)
        self.writes.append(f"{method} {path}")
        if fault == Fault.CRASH_AFTER:
            self._die()
        if fault == Fault.LOST:
            raise errors.UnavailableError("no answer within 5 s")
        self._alive()
        return answer

    async def write_ungated(self, method: str, path: str, body: Object, *, seconds: float) -> Object:
        self._alive()
        return await self.api.write_ungated(method, path, body, seconds=seconds)

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Object]:
        cut = asyncio.create_task(self.cut.wait())
        following: asyncio.Future[Object | None] = asyncio.get_running_loop().create_future()
        events = self.api.watch(path, query)
        try:
            while True:
                following = asyncio.ensure_future(anext(events, None))
                await asyncio.wait((cut, following), return_when=asyncio.FIRST_COMPLETED)
                if cut.done():
                    raise errors.UnavailableError("connection reset")
                event = await following
                if event is None:
                    return
                yield event
        finally:
            cut.cancel()
            following.cancel()
            await asyncio.gather(cut, following, return_exceptions=True)

    def _alive(self) -> None:
        if self.dead:
            raise errors.NotLeaderError("this process is dead")

    def _die(self) -> None:
        self.dead = True
        self._alive()
