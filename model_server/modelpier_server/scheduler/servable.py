"""A model that is served: its queue, its batches, its runners.

Made by `lifecycle` (which calls `warm_up` in a thread before anybody may find it) and used by the transport for every
request. All bookkeeping is on the event loop: no locks. A batch forms while the previous one runs; nothing ever waits
for a batch to fill. What other parts know: `split` of requests that are too large for one run, `suspects` of batches
that failed, `turns` of the loop's time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy.typing as npt

from modelpier_server.contract import Batching, Comparison, PlannedModel, Role
from modelpier_server.errors import DeadlineExceeded, InferenceFailed, QueueFull, ServerError, Unavailable
from modelpier_server.protocol.signature import Signature
from modelpier_server.runtime.session import Control, Session
from modelpier_server.scheduler.batch import Batch, Outcome
from modelpier_server.scheduler.check import check_inputs, check_outputs
from modelpier_server.scheduler.forecast import Ahead, Forecast
from modelpier_server.scheduler.guard import LIMIT
from modelpier_server.scheduler.padding_probe import Refusal, find_padding
from modelpier_server.scheduler.placement import Placement
from modelpier_server.scheduler.probe import Finding, probe
from modelpier_server.scheduler.queue import WorkQueue
from modelpier_server.scheduler.runner import Runner, timed
from modelpier_server.scheduler.split import Piece, Split
from modelpier_server.scheduler.suspects import Suspects
from modelpier_server.scheduler.turns import Turns
from modelpier_server.scheduler.work import Arrays, FutureWork, Stage, Work
from modelpier_server.telemetry import Failure, Histogram, Metrics, ModelMetrics

log = logging.getLogger(__name__)
CLOSE_LIMIT = 10.0
"""Seconds that `close` waits for a run that does not end."""
KEPT = 0.1
"""Seconds that a full queue's refusal is said again as it is: to predict the wait for each costs more than it tells."""
SWEEP_INTERVAL = 0.1
"""Seconds between looks for works whose time is over: one timer per model instead of one per request."""
FAR_AWAY = float("inf")
TIMES_LONGEST = 10
"""A run may take so many times the longest that was seen, when `run_timeout` does not say it."""
HUNG_AFTER = 5.0
"""Seconds that a run gets to notice that it was told to end: a single operator cannot be ended."""
_clock = time.perf_counter_ns
Answered = tuple[Mapping[str, npt.NDArray[Any]], Arrays]
"""Inputs and outputs of a request whose caller has its answer. They may be parts of something larger."""


class Mirror(Protocol):
    """Repeats requests on a shadow (`mirror.Mirror`)."""

    @property
    def version(self) -> str: ...

    def offer(self, version: str, names: tuple[str, ...], answered: Sequence[Answered]) -> None: ...
    def report(self) -> tuple[Comparison, ...]: ...


class Servable:
    """One revision of one model, loaded. Everything but `warm_up` belongs to the event loop's thread."""

    def __init__(self, session: Session, planned: PlannedModel, metrics: Metrics, turns: Turns | None = None) -> None:
        """`turns` is shared by all models of a process; without it the model has the event loop for itself."""
        self.session = session
        self.planned = planned
        self.name = planned.name
        self.version = planned.version
        self.revision = planned.revision
        self.limits = planned.options.limits
        self.signature = Signature.of(session.inputs, session.outputs)
        self.finding = Finding(0, "off: not probed yet")
        self.in_flight = 0
        """Requests taken and not answered yet."""
        self.mirrors: tuple[Mirror, ...] = ()
        """Of the shadows that repeat what this one has answered."""
        self.mirror: Mirror | None = None
        """Its own, while it is a shadow."""
        self._registry = metrics
        self._shadow = planned.role is Role.SHADOW
        self._metrics = self._own_metrics() if self._shadow else metrics.hold(planned.name, planned.version)
        self._all_outputs = tuple(self.signature.outputs)
        self._static = all(-1 not in spec.shape[1:] for spec in session.inputs)
        self._only = session.inputs[0].name if len(session.inputs) == 1 else None
        self._placement = Placement()
        self._forecast = Forecast()
        self._harmless, self._soon = -1, 0.0
        """While no more elements wait and no request's time ends earlier, no wait is looked at: the hot path."""
        self._levels = self.limits.priority_levels
        self._delay = planned.options.batching.max_delay
        """Seconds that a request may wait for others to share its run."""
        self._alarm: asyncio.TimerHandle | None = None
        self._queue = WorkQueue()
        self._splits: set[Split] = set()
        """Requests of which pieces are still to be made."""
        self._suspects = Suspects()
        self._turns = turns or Turns()
        self._running: set[Batch] = set()
        self._runners: list[Runner] = []
        self._idle: list[Runner] = []
        self._loop = _running_loop()
        self._asked = False
        """For a turn."""
        self._credit = 0
        """Nanoseconds that runs on the loop may still take in this turn."""
        self._short = False
        """Runs on the loop are left, for which there was no credit."""
        self._sweeping = False
        self._refusal: str | None = None
        self._full: QueueFull | None = None
        self._full_until = 0.0
        self._empty: asyncio.Event | None = None

    # ------------------------------------------------------------------------------------------ before it serves
    def warm_up(self) -> None:
        """Blocking: runs real shapes, finds out whether and how batches work. Call it in a thread before it is found.

        Raises ModelError(OUT_OF_MEMORY).
        """
        wanted = self.planned.options.batching
        self.finding = probe(self.session, wanted)
        if wanted.padding and self.finding.max_rows:
            self._find_padding(wanted)
        for elements, seconds in self.finding.costs:
            self._placement.learn(elements, seconds)
            self._forecast.learn(elements, seconds)
        if self.finding.max_rows:
            self.signature = replace(self.signature, empty_rows=False)
            self.session.prepare(self.finding.max_rows)
        fields = {"model": self.name, "version": self.version, "batching": self.finding.why}
        log.info("model warmed up", extra={**fields, "provider": self.session.provider})

    @property
    def batching(self) -> str:
        """What was found out about it, for people."""
        return self.finding.why

    def _find_padding(self, wanted: Batching) -> None:
        found = find_padding(self.session, wanted, self.finding.size)
        if isinstance(found, Refusal):
            self.finding.why += f"; lengths are not padded: {found.why}"
        else:
            self.finding.padding = found
            self.finding.why += "; lengths are padded"

    # ------------------------------------------------------------------------------------------ shadows
    def stand_back(self) -> None:
        """It is a shadow from now on: it does not use the event loop's time, and its requests count for themselves.
        Autoscalers and dashboards read those of callers.
        """
        if not self._shadow:
            self._shadow, self.mirrors = True, ()
            self._registry.release(self._metrics)
            self._count_in(self._own_metrics())

    def stand_forward(self) -> None:
        """It is a shadow no longer; its figures as one are dropped."""
        if self._shadow:
            self._shadow, self.mirror = False, None
            self._count_in(self._registry.hold(self.name, self.version))

    def _own_metrics(self) -> ModelMetrics:
        return ModelMetrics(self.name, self.version)

    def _count_in(self, metrics: ModelMetrics) -> None:
        self._metrics.pending -= len(self._queue)
        metrics.pending += len(self._queue)
        self._metrics = metrics

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def run_seconds(self) -> Histogram:
        return self._metrics.run_seconds

    @property
    def compared(self) -> tuple[Comparison, ...]:
        """How it differs from those that answer, while it is a shadow."""
        return self.mirror.report() if self.mirror is not None else ()

    def _reflect(self, batch: Batch, answered: list[tuple[Work, Arrays]]) -> None:
        """Hands what was answered to the shadows. An edge: nothing of theirs may reach the callers."""
        inputs = {id(work): given for work, given in zip(batch.works, batch.inputs, strict=True)}
        found: list[Answered] = [
            (work.split.inputs, work.split.outputs) if isinstance(work, Piece) else (inputs[id(work)], result)
            for work, result in answered
        ]
        for mirror in self.mirrors:
            try:
                mirror.offer(self.version, batch.outputs, found)
            except Exception:
                log.exception("a shadow could not be given what was answered")

    # ------------------------------------------------------------------------------------------ taking requests
    def submit(
        self, inputs: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str] | None, deadline: float
    ) -> asyncio.Future[Arrays]:
        """Future of the outputs, in the order asked for. `deadline` in seconds of `time.monotonic()`.

        Raises InvalidRequest, QueueFull, Unavailable at once; the future raises DeadlineExceeded, InferenceFailed,
        InvalidRequest.
        """
        check_inputs(inputs, self.signature)
        check_outputs(outputs, self.signature)
        work = FutureWork(dict(inputs), outputs, deadline)
        self.enqueue(work)
        return work.future

    def enqueue(self, work: Work) -> None:
        """As `submit`, for a work whose inputs the codec has already checked. Raises QueueFull, Unavailable."""
        if self._refusal is not None:
            raise Unavailable(self._refusal)
        self._measure(work)
        if self._levels > 1:
            self._rank(work)
        if len(self._queue) >= self.limits.max_queue:
            self._make_room(work)
        if self._running and (self._queue.elements > self._harmless or work.deadline < self._soon or self._splits):
            self._check_wait(work)
        if work.rows > self.finding.max_rows:
            split = Split(work, self.finding.max_rows, self)
            self._splits.add(split)
            piece = split.next()
            assert piece is not None
            self._push(piece)
        else:
            self._push(work)

    def full(self) -> QueueFull | None:
        """What is to be told to a request that comes now; None where there is room. It is asked before the body is
        decoded, so that a refusal costs little; with levels of priority only the decoded request can say.

        The error is kept and told again: whoever raises it lets its traceback hold what it was raised over.
        """
        if len(self._queue) < self.limits.max_queue or self._levels > 1 or self._refusal is not None:
            return None
        self._metrics.failures[Failure.REJECTED] += 1
        now = time.monotonic()
        if self._full is None or now >= self._full_until:
            self._full, self._full_until = self._full_error(self._queue.last()), now + KEPT
        return self._full

    def check_room(self) -> None:
        """As `full`, for who needs no kept one. Raises QueueFull."""
        if (error := self.full()) is not None:
            raise QueueFull(str(error), error.retry_after or 0.0)

    def _full_error(self, work: Work) -> QueueFull:
        """What the queue's bound means for `work`, or for one like it."""
        wait = self._forecast.wait(self._ahead(work), max(1, self.session.instances))
        return QueueFull(
            f"model '{self.name}': {len(self._queue)} requests wait already; try again later", max(1.0, wait)
        )

    def _rank(self, work: Work) -> None:
        """A work of a later level counts as one that has come later: it is overtaken by whoever comes within that
        time, and by nobody for ever.
        """
        level = work.priority if 0 < work.priority <= self._levels else (self._levels + 1) // 2
        work.order += (level - 1) * int(self.limits.request_timeout * 1e9 / (2 * self._levels))

    def _make_room(self, work: Work) -> None:
        """The queue is full. Raises QueueFull, unless somebody waits there who would be run after `work`."""
        error = self._full_error(work)
        last = self._queue.last() if self._levels > 1 else work
        self._metrics.failures[Failure.REJECTED] += 1
        if last.order <= work.order:
            raise error
        self.leave(last)
        last.fail(error)

    def _check_wait(self, work: Work) -> None:
        """Raises QueueFull for a work that would wait longer than it may: better now than when its time is over."""
        wait = self._forecast.wait(self._ahead(work), max(1, self.session.instances))
        most = work.deadline - time.monotonic()
        if self.limits.max_queue_wait:
            most = min(most, self.limits.max_queue_wait)
        if wait > most:
            self._metrics.failures[Failure.REJECTED] += 1
            text = f"model '{self.name}': a wait of {wait:.3g} s is expected, but {max(most, 0):.3g} s are left"
            raise QueueFull(f"{text}; try again later", wait - max(most, 0.0))

    def _ahead(self, work: Work) -> Ahead:
        queue, now = self._queue, _clock()
        waiting = queue.elements_before(work.order) if self._levels > 1 else queue.elements
        return Ahead(
            waiting + sum(split.uncut for split in self._splits),
            max(1, work.elements * max(1, self.finding.max_rows) // max(1, work.rows)),
            tuple((batch.elements, (now - batch.started) / 1e9) for batch in self._running),
        )

    def split_ended(self, split: Split) -> None:
        self._splits.discard(split)

    def take_whole(self, work: Work) -> None:
        """A work that can share no run; the queue's bound has counted it already."""
        work.rows, work.key = 0, None
        self._push(work)

    def _push(self, work: Work) -> None:
        work.stage = Stage.QUEUED
        work.owner = self
        self._queue.push(work)
        self.in_flight += 1
        self._metrics.pending += 1
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if not self._asked:  # as `_ask`, on the hot path
            self._asked = True
            self._turns.ask(self, loop)
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(SWEEP_INTERVAL, self._sweep)

    def reject(self) -> None:
        """Counts a request that was wrong in itself."""
        self._metrics.failures[Failure.OTHER] += 1

    def _measure(self, work: Work) -> None:
        """Rows, elements and whom the work can share a run with."""
        inputs = work.inputs
        if self._only is not None and self._static:  # the common case of the general one below
            array = inputs[self._only]
            work.elements = array.size
            if self.finding.max_rows:
                work.rows = array.shape[0]
                work.key = (work.outputs, ())
            return
        work.elements = sum(array.size for array in inputs.values())
        rows = {array.shape[0] for array in inputs.values()} if self.finding.max_rows else ()
        if len(rows) == 1:
            (work.rows,) = rows
            padding, shapes = self.finding.padding, None
            if padding is not None:
                shapes = padding.shapes(inputs, self.signature.inputs)
            if shapes is None:
                shapes = () if self._static else tuple(inputs[name].shape[1:] for name in self.signature.inputs)
            work.key = (work.outputs, shapes)

    # ------------------------------------------------------------------------------------------ running
    def turn(self, quantum: int) -> bool:
        """Starts every run that can start now: short ones here and at once, others on idle runners. See `Turns`."""
        # What is pushed meanwhile, such as the next piece of a split request, has its turn here and asks for no other.
        self._asked, self._short = True, False
        self._credit = min(self._credit, 0) + quantum
        try:
            self._start_all()
        finally:
            self._asked = False
        self._asked = self._short
        return self._short

    def _start_all(self) -> None:
        progress = True
        while progress and (self._queue or self._suspects):
            progress = bool(self._suspects) and self._start_suspects()
            for head in self._queue.heads():
                progress = self._start(head) or progress

    def _start(self, head: Work) -> bool:
        """Whether a run of `head` was started."""
        max_rows = self.finding.max_rows
        if self._delay and head.rows and self._may_wait(head):
            return False
        share = max(1, min(max_rows, self._queue_rows(head)) // head.rows) if head.rows else 1
        on_loop = self.session.on_loop and not self._shadow and self._placement.on_loop(head.elements * share)
        if not (on_loop and self._credit > 0) and not self._may_start(on_loop):
            return False
        works = self._queue.take(head, max_rows)
        self._metrics.pending -= len(works)
        self._queue.elements -= self._launch(works, [], on_loop)
        if head.part and isinstance(head, Piece) and (piece := head.split.next()):
            self._push(piece)
        return True

    def _may_wait(self, head: Work) -> bool:
        """Whether others may still come to share its run."""
        if self._queue.rows_beside(head, self.finding.max_rows) >= self.finding.max_rows or self._refusal is not None:
            return False
        waited = (_clock() - head.arrived) / 1e9
        # Half of the time that a request has belongs to its run.
        left = min(self._delay - waited, (head.deadline - time.monotonic() - waited) / 2)
        if left <= 0:
            return False
        assert self._loop is not None
        due = self._loop.time() + left
        if self._alarm is None or self._alarm.when() > due:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = self._loop.call_at(due, self._ring)
        return True

    def _ring(self) -> None:
        self._alarm = None
        self._ask()

    def _start_suspects(self) -> bool:
        elements = sum(work.elements for work in self._suspects.first)
        on_loop = self.session.on_loop and not self._shadow and self._placement.on_loop(elements)
        if not self._may_start(on_loop):
            return False
        works, rest = self._suspects.next()
        left = [work for work in works if work.stage is Stage.RUNNING]
        if left:
            self._launch(left, rest, on_loop)
        else:
            self._suspects.failed([], rest)
        return True

    def _may_start(self, on_loop: bool) -> bool:
        if not on_loop:
            return self._has_runner()
        if self._credit <= 0:
            self._short = True
        return self._credit > 0

    def _launch(self, works: list[Work], rest: list[Work], on_loop: bool) -> int:
        """Input elements of the works, of which those do not run whose time is over."""
        now, elements, late = time.monotonic(), 0, False
        for work in works:
            work.stage = Stage.RUNNING
            elements += work.elements
            if work.deadline <= now:
                late = True
                self._expire(work)
        if late:
            works = [work for work in works if work.stage is Stage.RUNNING]
        if not works:
            self._suspects.failed([], rest)
            return elements
        outputs = works[0].outputs or self._all_outputs
        batch = Batch(works, [work.inputs for work in works], outputs, elements, _clock(), rest)
        batch.padding = self.finding.padding
        self._running.add(batch)
        if on_loop:
            self._run_here(batch)
        else:
            batch.control = Control()
            self._idle.pop().give(batch)
        return elements

    def _queue_rows(self, head: Work) -> int:
        return len(self._queue) * head.rows

    def _has_runner(self) -> bool:
        if not self._idle and len(self._runners) < max(1, self.session.instances):
            assert self._loop is not None
            runner = Runner(f"{self.name}-{len(self._runners)}", self.session, self._loop, self._ran)
            self._runners.append(runner)
            self._idle.append(runner)
        return bool(self._idle)

    def _run_here(self, batch: Batch) -> None:
        guard = self._turns.guard
        batch.control = control = guard.begin()
        outcome, seconds = timed(self.session, batch)
        guard.end()
        if control.aborted:
            if seconds > LIMIT / 2:  # and it did run, rather than its machine stand still
                self._placement.leave_loop()
            outcome.results = None
        else:
            self._placement.ran_on_loop(batch.elements, seconds)
        self._deliver(batch, outcome)
        self._credit -= _clock() - batch.started

    def _ran(self, runner: Runner, batch: Batch, outcome: Outcome, seconds: float) -> None:
        self._idle.append(runner)
        if not (batch.control and batch.control.aborted):  # how long the whole run would have taken is not known
            self._placement.ran_on_thread(batch.elements, seconds)
            self._learn(batch.elements, (_clock() - batch.started) / 1e9)
        self._credit = min(self._credit, 0)
        self._start_all()  # before the answers: the runner's core is free
        self._deliver(batch, outcome)
        if self._short or self._suspects:
            self._ask()

    def _learn(self, elements: int, seconds: float) -> None:
        self._forecast.ran(elements, seconds)
        allowed = min(self.limits.request_timeout, self.limits.max_queue_wait or FAR_AWAY) / 2
        self._harmless = int(elements * max(0.0, allowed - seconds) / max(seconds, 1e-9))
        self._soon = time.monotonic() + allowed

    def _ask(self) -> None:
        """For a turn, once: the rest of what this iteration of the loop parses comes into the same batch."""
        if not self._asked:
            self._asked = True
            assert self._loop is not None
            self._turns.ask(self, self._loop)

    def _deliver(self, batch: Batch, outcome: Outcome) -> None:  # noqa: C901, PLR0915 - the hot path: a call costs
        """Answers to all works of a batch that still wait."""
        metrics = self._metrics
        self._running.discard(batch)
        metrics.executions += 1
        if outcome.results is None:
            self._suspects.failed(batch.works, batch.rest)
            return
        note_request = metrics.request_seconds.recent.append
        note_queue = metrics.queue_seconds.recent.append
        note_answer = metrics.serialise_seconds.recent.append
        answered: list[tuple[Work, Arrays]] | None = [] if self.mirrors else None
        success = rows = waited = answering = 0
        start = _clock()
        for work, result in zip(batch.works, outcome.results, strict=True):
            rows += work.rows
            if work.stage is Stage.DONE:  # cancelled or expired, and counted then
                continue
            self._finish(work)
            if work.record is not None:
                _note_run(work, batch, outcome, failed=isinstance(result, ServerError))
            if isinstance(result, ServerError):
                self._count_failure(result, start - work.arrived)
                work.fail(result)
            elif work.part and isinstance(work, Piece) and not work.split.collect(work, result):
                metrics.rows += work.rows
            elif not _succeed(work, result):
                metrics.failures[Failure.OTHER] += 1
                metrics.fail_ns += _clock() - work.arrived
            else:
                end = _clock()
                success += 1
                metrics.rows += work.rows or 1
                queued, spent = batch.started - work.arrived, end - start
                waited += queued
                answering += spent
                note_request(end - work.arrived)
                note_queue(queued)
                note_answer(spent)
                start = end
                if answered is not None:
                    answered.append((work, result))
        metrics.success += success
        metrics.queue_ns += waited
        metrics.compute_input_ns += success * outcome.input_ns
        metrics.compute_infer_ns += success * outcome.infer_ns
        metrics.compute_output_ns += success * outcome.output_ns + answering
        if success:
            metrics.last_inference = start
        metrics.ran(rows or 1, (outcome.input_ns, outcome.infer_ns, outcome.output_ns + answering))
        if batch.rest:
            self._go_on(batch, outcome.results)
        if answered:
            self._reflect(batch, answered)

    def _go_on(self, batch: Batch, results: Sequence[Arrays | ServerError]) -> None:
        """With those whose run together with this batch has failed."""
        alone = len(batch.works) == 1 and isinstance(results[0], ServerError)
        self._suspects.failed([], batch.rest) if alone else self._suspects.passed(batch.rest)

    def _count_failure(self, error: ServerError, spent: int) -> None:
        fault = isinstance(error, InferenceFailed)
        self._metrics.failures[Failure.BACKEND if fault else Failure.OTHER] += 1
        self._metrics.fail_ns += spent

    # ------------------------------------------------------------------------------------------ leaving early
    def _finish(self, work: Work) -> None:
        work.release()
        self.in_flight -= 1
        if not self.in_flight and self._empty is not None:
            self._empty.set()

    def withdraw(self, work: Work) -> None:
        """The caller left: `Work.cancel` says so."""
        self.leave(work)
        self._metrics.failures[Failure.CANCELED] += 1
        self._metrics.fail_ns += _clock() - work.arrived

    def leave(self, work: Work) -> None:
        if work.stage is Stage.QUEUED:
            self._queue.remove(work)
            self._metrics.pending -= 1
            self._finish(work)
        else:
            self._finish(work)
            self._abandon(work)

    def _abandon(self, work: Work) -> None:
        """A run for which `work` was the last to wait ends: its thread, or its GPU, has better things to do."""
        for batch in self._running:
            if work in batch.works:
                batch.abandon()

    def _expire(self, work: Work) -> None:
        """A work that is in no queue any longer."""
        self._finish(work)
        self._metrics.failures[Failure.REJECTED] += 1
        self._metrics.fail_ns += _clock() - work.arrived
        work.fail(DeadlineExceeded(f"model '{self.name}': no answer within the request's time"))

    def _unfinished(self) -> list[Work]:
        """Works that are in the queue no longer and not answered yet."""
        running = [work for batch in self._running for work in (*batch.works, *batch.rest)]
        return [work for work in (*running, *self._suspects) if work.stage is Stage.RUNNING]

    def _sweep(self) -> None:
        self._sweeping = False
        now = time.monotonic()
        for work in [work for work in self._queue if work.deadline <= now]:
            if work.stage is Stage.QUEUED:  # not a piece that has left together with another one
                self._queue.remove(work)
                self._metrics.pending -= 1
                self._expire(work)
        for work in self._unfinished():
            if work.deadline <= now and work.stage is Stage.RUNNING:
                self._expire(work)
                self._abandon(work)
        for batch in self._running:
            if batch.control is not None and self._overtime(batch) > 0:
                batch.control.abort()
        if (self.in_flight or self._running) and self._loop is not None:
            self._sweeping = True
            self._loop.call_later(SWEEP_INTERVAL, self._sweep)

    # ------------------------------------------------------------------------------------------ runs that do not end
    @property
    def hung(self) -> bool:
        """Whether a runner thread is in a run that is over its time and does not end although it was told to. Nothing
        in this process can free that thread.
        """
        return any(self._overtime(batch) > HUNG_AFTER for batch in self._running)

    def _overtime(self, batch: Batch) -> float:
        """Seconds beyond what a run may take."""
        limit = self.limits.run_timeout or max(self.limits.request_timeout, TIMES_LONGEST * self._forecast.longest)
        return (_clock() - batch.started) / 1e9 - limit

    # ------------------------------------------------------------------------------------------ the end
    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109 - ends in time instead of being cancelled
        """Takes nothing new, waits for what is under way; whether all was answered within `timeout` seconds."""
        self._refusal = f"model '{self.name}' version '{self.version}' is being taken out of service"
        if self.in_flight:
            self._empty = asyncio.Event()
            try:
                await asyncio.wait_for(self._empty.wait(), timeout)
            except TimeoutError:
                return False
        return True

    def close(self) -> None:
        """Ends the runners and gives the memory back; whoever still waits is told so.

        May be called in any thread; in another than the loop's it waits for a run under way (CLOSE_LIMIT at most).
        """
        loop = self._loop
        if loop is None or loop.is_closed() or loop is _running_loop():
            self._give_up()
            self.session.close()
            return
        told = threading.Event()

        def tell() -> None:
            self._give_up()
            told.set()

        loop.call_soon_threadsafe(tell)
        told.wait(CLOSE_LIMIT)
        for runner in self._runners:
            runner.join(CLOSE_LIMIT)
        self.session.close()

    def _give_up(self) -> None:
        self._refusal = f"model '{self.name}' version '{self.version}' is gone"
        for work in [*self._queue, *self._unfinished()]:
            if work.stage is Stage.DONE:  # a piece that has left together with another one
                continue
            self.leave(work)
            self._metrics.failures[Failure.CANCELED] += 1
            work.fail(Unavailable(self._refusal))
        for runner in self._runners:
            runner.stop()
        if not self._shadow:
            self._registry.release(self._metrics)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _note_run(work: Work, batch: Batch, outcome: Outcome, *, failed: bool) -> None:
    assert work.record is not None
    ended = batch.started + outcome.input_ns + outcome.infer_ns + outcome.output_ns
    values = {
        "modelpier.rows": work.rows or 1,
        "modelpier.batch.rows": sum(other.rows for other in batch.works) or 1,
        "modelpier.batch.requests": len(batch.works),
    }
    work.record.ran((work.arrived, batch.started, ended), values, failed=failed)


def _succeed(work: Work, result: Arrays) -> bool:
    """The edge to the caller's code: its mistake must not take the answers of the other works of the batch."""
    if work.record is not None:
        work.record.serialising()
    try:
        return work.succeed(result)
    except Exception:
        log.exception("an answer could not be given")
        work.fail(InferenceFailed("internal error; the server's log has it"))
        return False
