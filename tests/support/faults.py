"""Stands between the operator and an API server, in memory or real, and spoils requests to order.

`Faulty` is an `Api`. What is refused never reaches the server; what is lost was carried out and nobody told. A crash
cuts the operator off at a write, before or after it: nothing of that process gets through any more. Watches break off,
come back too late to go on, or lag behind. A `Journal` keeps what got through, of one operator process after another.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
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
class Journal:
    """What must not happen however requests go, as far as requests alone show it."""

    ended: set[str] = field(default_factory=set)
    """Uids of ModelDeployments that their users have deleted."""
    made_for_nobody: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By uid of an owner that was gone before and path: a pass that began before its end may make each object once."""
    deleted_again: list[str] = field(default_factory=list)
    """Deletions of what the same process had deleted and knew it."""
    made_again: list[str] = field(default_factory=list)
    """Creations of what the same process had made and knew it, and what is there still, for all to see."""
    writes: int = 0

    def note_creation(self, path: str, body: Object) -> None:
        for owner in body["metadata"].get("ownerReferences") or ():
            if owner.get("uid") in self.ended:
                self.made_for_nobody[owner["uid"], f"{path}/{body['metadata']['name']}"] += 1


@dataclass
class Faulty:
    api: Api
    coming: deque[Fault] = field(default_factory=deque)
    """One for each of the next writes."""
    dead: bool = False
    writes: list[str] = field(default_factory=list)
    """'METHOD path' of each write that was carried out."""
    journal: Journal = field(default_factory=Journal)
    unreadable: int = 0
    """So many of the next reads fail."""
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    _watched: set[str] = field(default_factory=set)
    _too_old: set[str] = field(default_factory=set)
    _lags: dict[str, float] = field(default_factory=dict)
    """By plural: loop time before which its watches deliver nothing."""
    _deleted: set[str] = field(default_factory=set)
    _made: set[str] = field(default_factory=set)

    def drop_watches(self, *, too_old: bool = False) -> None:
        """All watches that run now break off. `too_old`: none can go on where it was (410) before a listing."""
        if too_old:
            self._too_old |= self._watched
        self.cut.set()
        self.cut = asyncio.Event()

    def lag(self, plural: str, until: float) -> None:
        """Watches of this kind deliver nothing before `until`, in the loop's time."""
        self._lags[plural] = until

    def lags(self, plural: str) -> bool:
        return self._left(plural) > 0

    def end_faults(self) -> None:
        self.coming.clear()
        self._lags.clear()
        self.unreadable = 0

    async def get(self, path: str, query: Mapping[str, str] | None = None, *, accept: str = JSON) -> Object:
        self._alive()
        if self.unreadable:
            self.unreadable -= 1
            raise errors.UnavailableError("the server is out of order", status=503)
        answer = await self.api.get(path, query, accept=accept)
        if accept == JSON:  # names alone are listed by nobody who watches
            self._too_old.discard(_stream(path, query or {}))
        return answer

    async def write(
        self, method: str, path: str, body: Any, *, query: Mapping[str, str] | None = None, content_type: str = JSON
    ) -> Object:
        self._alive()
        fault = self.coming.popleft() if self.coming else Fault.NONE
        if fault in _REFUSALS:
            raise _REFUSALS[fault]
        if fault == Fault.CRASH_BEFORE:
            self._die()
        uid = str((body.get("preconditions") or {}).get("uid") or "") if method == "DELETE" else ""
        if uid in self._deleted:
            self.journal.deleted_again.append(path)
        try:
            answer = await self.api.write(method, path, body, query=query, content_type=content_type)
        except errors.AlreadyExistsError:
            await self._note_repetition(path, body)
            raise
        self.writes.append(f"{method} {path}")
        self.journal.writes += 1
        if method == "POST":
            self.journal.note_creation(path, body)
        if fault == Fault.CRASH_AFTER:
            self._die()
        if fault == Fault.LOST:
            raise errors.UnavailableError("no answer within 5 s")
        self._alive()
        if uid:
            self._deleted.add(uid)
        if method == "POST":
            self._made.add(answer["metadata"]["uid"])
        return answer

    async def _note_repetition(self, path: str, body: Object) -> None:
        """Whether what is in the way is our own. Of Events that is what keeps one from being told twice."""
        if body["kind"] == "Event":
            return
        try:
            live = await self.api.get(f"{path}/{body['metadata']['name']}")
        except errors.NotFoundError:
            return
        shown = body["metadata"]["labels"].items() <= (live["metadata"].get("labels") or {}).items()
        if live["metadata"]["uid"] in self._made and shown:
            self.journal.made_again.append(f"{path}/{body['metadata']['name']}")

    async def write_ungated(self, method: str, path: str, body: Object, *, seconds: float) -> Object:
        self._alive()
        return await self.api.write_ungated(method, path, body, seconds=seconds)

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Object]:
        stream = _stream(path, query)
        if stream in self._too_old:
            raise errors.GoneError("too old resource version", status=410)
        self._watched.add(stream)
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
                while (left := self._left(path.rsplit("/", 1)[-1])) > 0 and not cut.done():
                    await asyncio.wait((cut,), timeout=left)
                if cut.done():
                    raise errors.UnavailableError("connection reset")
                yield event
        finally:
            cut.cancel()
            following.cancel()
            await asyncio.gather(cut, following, return_exceptions=True)

    def _left(self, plural: str) -> float:
        """Seconds that its watches lag still."""
        return self._lags.get(plural, 0.0) - asyncio.get_running_loop().time()

    def _alive(self) -> None:
        if self.dead:
            raise errors.NotLeaderError("this process is dead")

    def _die(self) -> None:
        self.dead = True
        self._alive()


def _stream(path: str, query: Mapping[str, str]) -> str:
    """What a watch and the listing before it have in common."""
    return "?".join((path, query.get("labelSelector", ""), query.get("fieldSelector", "")))
