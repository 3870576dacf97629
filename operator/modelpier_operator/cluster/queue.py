"""The queue of ModelDeployments to look at: every watch adds keys, the workers of `reconcile` take them.

Semantics of client-go's workqueue: a key is in it once at most, no two workers ever hold the same key, and a key that
is added while a worker holds it comes back once that one is done. Its bound is the number of different keys.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from modelpier_operator.cluster.backoff import Backoff
from modelpier_operator.cluster.kinds import Key

Rng = Callable[[], random.Random]


class Queue:
    """Belongs to one event loop; times are that loop's."""

    def __init__(self, *, base: float = 0.2, cap: float = 60.0, rng: Rng = random.Random) -> None:
        self._base, self._cap, self._rng = base, cap, rng
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._dirty: set[Key] = set()
        self._held: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, Backoff] = {}

    def __len__(self) -> int:
        """Keys that wait for a worker."""
        return len(self._dirty)

    @property
    def idle(self) -> bool:
        """Nothing waits and nobody works; timers may still be running."""
        return not self._dirty and not self._held

    def add(self, key: Key) -> None:
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._held:
            self._ready.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Add the key once `seconds` have passed; of several wishes for a key the earliest counts."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(0.0, seconds)
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._ring, key)

    def _ring(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def get(self) -> Key:
        """The next key, held by the caller until `done`."""
        key = await self._ready.get()
        self._held.add(key)
        self._dirty.discard(key)
        if timer := self._timers.pop(key, None):
            timer.cancel()
        return key

    def done(self, key: Key) -> None:
        self._held.discard(key)
        if key in self._dirty:
            self._ready.put_nowait(key)

    def failed(self, key: Key, at_least: float = 0.0) -> None:
        """Look again after the key's own back-off, and not before `at_least` seconds."""
        backoff = self._failures.setdefault(key, Backoff(self._base, self._cap, rng=self._rng()))
        self.add_after(key, max(at_least, backoff.next()))

    def succeeded(self, key: Key) -> None:
        self._failures.pop(key, None)

    def close(self) -> None:
        """Cancel all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
