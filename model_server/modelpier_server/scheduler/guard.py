"""Ends runs on the event loop that do not end.

Which runs take place there is learned from shapes; what a Loop in a graph does may depend on values. While such a run
lasts, the loop answers nobody, and only another thread can end it. `Servable` runs it again on a runner thread, and
never again on the loop.
"""

from __future__ import annotations

import threading
import time
import weakref

from modelpier_server.runtime.session import Control

LIMIT = 1.0
"""Seconds; runs on the loop are expected to take less than a thousandth of it."""
INTERVAL = 0.25

_clock = time.monotonic


class Guard:
    """One per event loop. `begin` and `end` cost a fraction of a microsecond: the same Control serves all runs."""

    def __init__(self) -> None:
        self._control = Control()
        self._since = 0.0
        self._started = False

    def begin(self) -> Control:
        if not self._started:
            self._started = True
            threading.Thread(target=_watch, args=(weakref.ref(self),), name="loop-guard", daemon=True).start()
        self._since = _clock()
        return self._control

    def end(self) -> None:
        self._since = 0.0
        if self._control.aborted:
            self._control = Control()

    def look(self) -> None:
        """From the guard's own thread. The run may have ended just now; the next one, which is then hit, runs again."""
        since = self._since
        if since and _clock() - since > LIMIT:
            self._control.abort()


def _watch(reference: weakref.ref[Guard]) -> None:
    while (guard := reference()) is not None:
        guard.look()
        del guard
        time.sleep(INTERVAL)
