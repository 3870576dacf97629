"""Brings one planned model up: fetch, load, warm up. `follower` starts one task of it per planned model."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from modelpier_server.contract import FailureReason, ModelState, PlannedModel, Role
from modelpier_server.errors import ModelError, ServerError
from modelpier_server.lifecycle import examples, golden
from modelpier_server.lifecycle.board import Record
from modelpier_server.lifecycle.journal import Journal, Step
from modelpier_server.lifecycle.marked import Marked
from modelpier_server.lifecycle.parts import S, Tools
from modelpier_server.repository.fetch import Fetched
from modelpier_server.repository.retry import Stopped
from modelpier_server.runtime import Session, memory
from modelpier_server.runtime.hooks import FILE

DOWNLOADS = 2
LOADS = 1
"""At a time: a load takes all cores and, for its length, twice the model's memory."""
MOST_RELOADS, CRASH_WINDOW = 3, 600.0
"""A model whose process ends by itself is loaded again so many times within so many seconds; the next end is final.
Ends of the server's own process count like those of a process of the model's own."""
_REMEDY = (
    "it is not loaded again before its plan changes or, if it is required, before ten minutes have passed; "
    "see how the container ended, and try the model with server.isolated, where a crash takes nobody else"
)
TRANSIENT = frozenset({FailureReason.DOWNLOAD_FAILED})

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Again:
    """When a fetch that failed for a passing reason is tried again: full jitter, on top of the tries per request."""

    attempts: int = 5
    base: float = 1.0
    cap: float = 30.0
    candidates: int | None = None
    """Attempts for what is not required; None: as many."""

    def pause(self, failed: int) -> float:
        return random.uniform(0.1, min(self.cap, self.base * 2**failed))  # noqa: S311 - spreads load, guards nothing


class BringUp(Generic[S]):
    """Shared by all models of a server; bounds how many are fetched and loaded at a time."""

    def __init__(
        self,
        tools: Tools[S],
        changed: Callable[[Record[S]], None],
        room: Callable[[Record[S]], Awaitable[None]],
        lost: Callable[[Record[S], Session, str], None],
        again: Again,
        *,
        journal: Journal,
    ) -> None:
        """`lost` is called when the process of a loaded model has ended by itself, with how it did."""
        self.tools = tools
        self._changed = changed
        self._room = room
        self._lost = lost
        self._again = again
        self._journal = journal
        self._downloads = ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="fetch")
        self._loads = ThreadPoolExecutor(LOADS, thread_name_prefix="load")

    def close(self) -> None:
        self._downloads.shutdown(wait=False, cancel_futures=True)
        self._loads.shutdown(wait=False, cancel_futures=True)

    async def run(self, record: Record[S]) -> None:
        """Ends with the record LOADED, or FAILED and freed; or as it is when it is no longer wanted."""
        if past := self._journal.past(record.planned):
            now, today = asyncio.get_running_loop().time(), time.time()
            record.crashes = [now - max(0.0, today - at) for at in past.at if today - at < CRASH_WINDOW]
            error = ModelError(FailureReason.MODEL_CRASHED, f"{past.text}; {_REMEDY}")
            if self._final(record):
                await self.fail(record, error)
                return
        await self._to_its_end(record, self._whole(record))

    def _final(self, record: Record[S]) -> bool:
        """Whether a model that has crashed is given up."""
        return record.planned.role is not Role.REQUIRED or len(record.crashes) > MOST_RELOADS

    async def crashed(self, record: Record[S], error: ModelError) -> None:
        """The model's own process ended, at whatever step. What production needs is loaded again, but not for ever; a
        candidate has shown what it is worth, and stays out until a plan changes something for it. Ends as `run` does.
        """
        if record.stop.is_set() or record.state is ModelState.FAILED or record.fetched is None:
            return
        now = asyncio.get_running_loop().time()
        record.crashes = [*(at for at in record.crashes if now - at < CRASH_WINDOW), now]
        if self._final(record):
            await self.fail(record, error)
            await self._note(record)
            return
        record.reason, record.message = error.reason, f"{error}; loading it again"
        self._move(record, ModelState.LOADING)
        await self._to_its_end(record, self._second(record))

    async def _note(self, record: Record[S]) -> None:
        """A process after this one must not begin anew with a candidate that was given up here."""
        if record.planned.role is Role.REQUIRED:
            return
        digest = record.digest or ""
        await self.blocking(lambda: self._journal.crashed(record.planned, digest, Step.APART))

    async def _whole(self, record: Record[S]) -> None:
        await self._fetch(record)
        await self._room(record)
        await self._load(record)

    async def _second(self, record: Record[S]) -> None:
        await self._free(record, 0.0)
        await _sleep(record, self._again.pause(len(record.crashes)))
        await self._room(record)
        await self._load(record)
        record.reason, record.message = None, ""

    async def _to_its_end(self, record: Record[S], work: Awaitable[None]) -> None:
        try:
            await work
        except Stopped:
            return
        except ModelError as error:
            ended = error.reason is FailureReason.MODEL_CRASHED
            await (self.crashed(record, error) if ended else self.fail(record, error))
        except Exception as error:
            # An edge: whatever goes wrong with one model must be reported and leave the others alone.
            log.exception("model failed unexpectedly", extra={"revision": record.planned.revision})
            text = f"unexpected {type(error).__name__}: {error}"
            await self.fail(record, ModelError(FailureReason.MODEL_INVALID, text))
        else:
            self._move(record, ModelState.LOADED)

    async def fail(self, record: Record[S], error: ModelError, drain: float = 0.0) -> None:
        """Reports first: requests must stop coming before the model is freed."""
        if record.stop.is_set():
            return
        record.fail(error)
        self._changed(record)
        await self.unload(record, drain)

    async def unload(self, record: Record[S], drain: float) -> None:
        """Frees what the record holds after the requests in flight, or after `drain` seconds."""
        await self._free(record, drain)
        fetched, record.fetched = record.fetched, None
        if fetched is not None:
            self.tools.release(fetched.digest)

    async def _free(self, record: Record[S], drain: float) -> None:
        """As `unload`, but keeps what was fetched."""
        servable, session = record.servable, record.session
        self._journal.leave(record.planned.revision)
        if servable is not None:
            await servable.drain(drain)
        if servable is not None and session is not None and session.lost is None:
            servable.close()  # here and not in a thread: a servable belongs to the event loop
        elif servable is not None:
            await self.blocking(servable.close)  # which waits until the model's process has ended
        elif session is not None:
            await self.blocking(session.close)
        record.servable = record.session = None
        if session is not None:
            del servable, session
            await self.blocking(memory.give_back)

    async def sweep(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._downloads, self.tools.sweep)

    async def blocking(self, action: Callable[[], T]) -> T:
        """Runs `action` where models are loaded, one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._loads, action)

    # -------------------------------------------------------------------------------------------- steps
    async def _fetch(self, record: Record[S]) -> None:
        patience = self._again.candidates if record.planned.role is not Role.REQUIRED else None
        attempts = patience or self._again.attempts
        for failed in range(1, attempts + 1):
            try:
                record.fetched = fetched = await self._fetch_once(record)
                record.digest, record.size_bytes = fetched.digest, fetched.size_bytes
                break
            except ModelError as error:
                if error.reason not in TRANSIENT or failed == attempts:
                    raise
                record.reason, record.message = error.reason, f"{error}; trying again"
            self._changed(record)
            await _sleep(record, self._again.pause(failed))
        record.reason, record.message = None, ""

    async def _fetch_once(self, record: Record[S]) -> Fetched:
        def fetch() -> Fetched:
            loop.call_soon_threadsafe(self._move, record, ModelState.DOWNLOADING)
            started = time.perf_counter()
            fetched = self.tools.fetch(record.planned, record.stop)
            record.timings["download"] = round(time.perf_counter() - started, 4)
            return fetched

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._downloads, fetch)

    async def _load(self, record: Record[S]) -> None:
        def load() -> None:
            if record.stop.is_set():
                raise Stopped
            assert record.fetched is not None
            loop.call_soon_threadsafe(self._move, record, ModelState.LOADING)
            _check_code(record.fetched, planned)
            if planned.role is not Role.REQUIRED:
                _check_memory(record.size_bytes)
            self._journal.begin(planned, record.fetched.digest, Step.LOADING)
            started = time.perf_counter()
            session = self.tools.load(record.fetched.path, planned.options, record.stop, record.fetched.digest)
            mark = self._journal.mark(planned)
            record.session = session if mark is None else Marked(session, mark)
            record.fetched.check()
            record.timings["load"] = round(time.perf_counter() - started, 4)

        def warm_up() -> None:
            assert record.servable is not None
            assert record.session is not None
            self._journal.begin(planned, record.digest or "", Step.WARMING)
            started = time.perf_counter()
            try:
                record.servable.warm_up()
                record.timings["warm_up"] = round(time.perf_counter() - started, 4)
                self._test(record, planned)
            except (ServerError, ModelError):
                _check_alive(record.session)  # the better reason
                raise
            _check_alive(record.session)
            self._journal.serve(planned, record.digest or "")

        loop, planned = asyncio.get_running_loop(), record.planned
        try:
            await self.blocking(load)
            assert record.session is not None
            record.servable = self.tools.serve(record.session, planned)
            self._move(record, ModelState.WARMING)
            await self.blocking(warm_up)
        except Exception:
            # It has come back from what it was at: nobody is to blame for what happens from now on.
            await self.blocking(lambda: self._journal.end(planned.revision))
            raise
        self._listen(record, record.session)  # not before: until here an end of the process is an end of this step

    def _test(self, record: Record[S], planned: PlannedModel) -> None:
        """Blocking: runs the examples that the model brings. Raises ModelError."""
        fetched, session = record.fetched, record.session
        assert fetched is not None
        assert session is not None
        folder, wanted = fetched.folder, planned.options.golden_tests
        if folder is None or not wanted.enabled or not examples.there(folder):
            return
        self._journal.begin(planned, fetched.digest, Step.TESTING)
        started = time.perf_counter()
        count = golden.check(session, folder, wanted)
        fetched.check()
        record.timings["golden_tests"] = round(time.perf_counter() - started, 4)
        log.info("golden tests passed", extra={"revision": planned.revision, "tests": count})

    def _listen(self, record: Record[S], session: Session) -> None:
        loop = asyncio.get_running_loop()

        def tell(ended: Future[str]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: so is the server
                loop.call_soon_threadsafe(self._lost, record, session, ended.result())

        if session.lost is not None:
            session.lost.add_done_callback(tell)

    def _move(self, record: Record[S], state: ModelState) -> None:
        if not record.stop.is_set():
            record.state = state
            self._changed(record)


def _check_code(fetched: Fetched, planned: PlannedModel) -> None:
    """Raises ModelError where code is wanted, hooks or libraries, that no digest covers."""
    if planned.options.hooks and fetched.folder is None:
        text = f'hooks: uri must name a folder, which the digest covers with its {FILE}: end it with "/"'
        raise ModelError(FailureReason.PLAN_INVALID, text)
    if planned.options.custom_operators and fetched.folder is None:
        text = 'customOperators: uri must name a folder, which the digest covers with its libraries: end it with "/"'
        raise ModelError(FailureReason.PLAN_INVALID, text)
    if not planned.options.hooks and fetched.folder is not None and (fetched.folder / FILE).exists():
        about = {"model": planned.name, "revision": planned.revision}
        log.warning("the model brings a %s, which is not run: server.hooks is off", FILE, extra=about)


def _check_memory(size_bytes: int) -> None:
    """What serves must not be ended by the kernel for the sake of what is tried out. Raises ModelError."""
    room = memory.room()
    if room is None or (needed := memory.of_load(size_bytes)) <= room.left:
        return
    text = (
        f"memory: to load {size_bytes >> 20} MiB takes about {needed >> 20} MiB beside the models that serve, and "
        f"{room.left >> 20} MiB of the container's {room.limit >> 20} MiB are left; raise resources.memory"
    )
    raise ModelError(FailureReason.OUT_OF_MEMORY, text)


def _check_alive(session: Session) -> None:
    """After runs, of which some may fail for good reasons: raises ModelError when one ended the model's process."""
    if session.lost is not None and session.lost.done():
        raise ModelError(FailureReason.MODEL_CRASHED, f"{session.lost.result()} during the warm-up")


async def _sleep(record: Record[S], seconds: float) -> None:
    """Raises Stopped as soon as the record is dropped."""
    try:
        await asyncio.wait_for(record.dropped.wait(), seconds)
    except TimeoutError:
        return
    raise Stopped
