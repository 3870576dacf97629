"""A thread that runs batches, one at a time: one per instance of a model."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from modelpier_server.errors import InferenceFailed
from modelpier_server.runtime.session import Session
from modelpier_server.scheduler.batch import Batch, Outcome, execute

log = logging.getLogger(__name__)

Done = Callable[["Runner", Batch, Outcome, float], None]


class Runner:
    """Takes a batch from the loop and gives the outcome back by one `call_soon_threadsafe`."""

    def __init__(self, name: str, session: Session, loop: asyncio.AbstractEventLoop, done: Done) -> None:
        self._session = session
        self._loop = loop
        self._done = done
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        # A daemon: a run that never ends must not keep the process from its end.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def give(self, batch: Batch) -> None:
        self._batches.put(batch)

    def stop(self) -> None:
        """Ends the thread after the batch that it runs."""
        self._batches.put(None)

    def join(self, timeout: float) -> None:
        """Blocking: waits for the end of the thread."""
        self._thread.join(timeout)

    def _work(self) -> None:
        while (batch := self._batches.get()) is not None:
            outcome, seconds = timed(self._session, batch)
            try:
                self._loop.call_soon_threadsafe(self._done, self, batch, outcome, seconds)
            except RuntimeError:  # the loop is closed: nobody waits any longer
                return


def timed(session: Session, batch: Batch) -> tuple[Outcome, float]:
    """An outcome and the seconds that it took; on a busy machine the wall clock also counts the runs of others."""
    clock = time.thread_time if session.caller_only else time.perf_counter
    start = clock()
    outcome = guarded(session, batch)
    return outcome, clock() - start


def guarded(session: Session, batch: Batch) -> Outcome:
    """`execute` at the edge: whatever goes wrong, every request of the batch gets an answer."""
    try:
        return execute(session, batch)
    except Exception:
        log.exception("a run failed in the server itself")
        return Outcome([InferenceFailed("internal error; the server's log has it")] * len(batch.works))
