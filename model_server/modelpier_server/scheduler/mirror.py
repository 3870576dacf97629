"""Repeats on a shadow what others of its name have answered, and compares the outputs.

`Mirrors` is one per process: `lifecycle` tells it of every change of what is ready. `Servable` hands each `Mirror` the
works of a batch after it has answered them; what a mirror does with them reaches no caller. Everything but the
comparison is on the event loop: the queue is bounded in requests and bytes, and the shadow gets them when nobody waits
for a primary.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from modelpier_server.contract import Comparison, Outcome, PlannedModel, Role
from modelpier_server.errors import DeadlineExceeded, InvalidRequest, QueueFull, ServerError, Unavailable
from modelpier_server.scheduler.compare import Difference, compare
from modelpier_server.scheduler.figures import Figures, render
from modelpier_server.scheduler.servable import Answered, Servable
from modelpier_server.scheduler.work import Arrays

MOST_WAITING = 256
"""Requests that wait for one shadow, those that it works at included."""
MOST_BYTES = 64 << 20
"""Of the inputs and outputs of these."""
TOGETHER = 16
"""Requests that are handed to the shadow at once, which may share a run there."""
PATIENCE = 1.0
"""Seconds that a shadow waits for primaries that have no rest; then it gets a turn all the same."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A request that was answered. Its tensors are copies: those of requests and batches are shared, and reused."""

    version: str
    inputs: Mapping[str, npt.NDArray[Any]]
    outputs: tuple[str, ...]
    expected: Arrays
    size: int


class Mirror:
    """One shadow and what waits for it."""

    def __init__(self, shadow: Servable) -> None:
        self.shadow = shadow
        self.share = 0
        """Percent."""
        self.figures: dict[str, Figures] = {}
        """By the version that has answered."""
        self.waiting = 0
        self.bytes = 0
        self._primaries: tuple[Servable, ...] = ()
        self._samples: deque[Sample] = deque()
        self._task: asyncio.Task[None] | None = None
        self._rest = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compare")
        self._closed = False

    def follow(self, share: int, primaries: tuple[Servable, ...]) -> None:
        self.share, self._primaries = share, primaries
        versions = dict.fromkeys(primary.version for primary in primaries)
        self.figures = {version: self.figures.get(version) or Figures() for version in versions}

    @property
    def version(self) -> str:
        """The shadow's."""
        return self.shadow.version

    def report(self) -> tuple[Comparison, ...]:
        return tuple(figures.report(version) for version, figures in self.figures.items())

    # ------------------------------------------------------------------------------------------ from the primaries
    def offer(self, version: str, names: tuple[str, ...], answered: Sequence[Answered]) -> None:
        """Takes its share of what `version` has answered, as far as there is room."""
        for inputs, outputs in answered:
            if self.share >= 100 or random.random() * 100 < self.share:  # noqa: S311 - a sample, no secret
                self._take(version, names, inputs, outputs)
        self._rest.set()  # a primary has done a run: perhaps none is left
        if self._samples and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    def _take(
        self, version: str, names: tuple[str, ...], inputs: Mapping[str, npt.NDArray[Any]], outputs: Arrays
    ) -> None:
        size = sum(map(_size, inputs.values())) + sum(map(_size, outputs))
        if self._closed or self.waiting >= MOST_WAITING or self.bytes + size > MOST_BYTES:
            self._count(version, Outcome.DROPPED)
            return
        copies = {name: array.copy() for name, array in inputs.items()}
        self._samples.append(Sample(version, copies, names, [array.copy() for array in outputs], size))
        self.waiting += 1
        self.bytes += size

    def _count(self, version: str, outcome: Outcome) -> None:
        """Versions that are served no longer are not counted any more."""
        if version in self.figures:
            self.figures[version].outcomes[outcome] += 1

    # ------------------------------------------------------------------------------------------ to the shadow
    async def _work(self) -> None:
        try:
            while self._samples:
                await self._wait_for_rest()
                await self._round(self._next())
        except Exception:  # an edge: the mirror's own mistake must end neither the server nor the mirror
            log.exception("a shadow's comparison failed in the server itself")
        finally:
            self._task = None

    async def _wait_for_rest(self) -> None:
        """Until no primary has anybody waiting, or for PATIENCE."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while any(primary.waiting for primary in self._primaries):
            self._rest.clear()
            try:
                async with asyncio.timeout_at(end):
                    await self._rest.wait()
            except TimeoutError:
                return

    def _next(self) -> list[Sample]:
        most = TOGETHER if self.shadow.finding.max_rows else 1
        return [self._samples.popleft() for _ in range(min(most, len(self._samples)))]

    async def _round(self, samples: list[Sample]) -> None:
        """The samples run together, as far as the shadow's own batching lets them."""
        futures: list[asyncio.Future[Arrays] | ServerError] = [self._submit(sample) for sample in samples]
        try:
            for sample, future in zip(samples, futures, strict=True):
                await self._judge(sample, future)
        finally:  # left early: nobody waits for the others any longer
            for future in futures:
                if isinstance(future, asyncio.Future) and not future.cancel() and not future.cancelled():
                    future.exception()  # asked for, so that nobody complains that it was not
            self.waiting -= len(samples)
            self.bytes -= sum(sample.size for sample in samples)

    def _submit(self, sample: Sample) -> asyncio.Future[Arrays] | ServerError:
        deadline = time.monotonic() + self.shadow.limits.request_timeout
        try:
            return self.shadow.submit(sample.inputs, sample.outputs, deadline)
        except ServerError as error:
            return error

    async def _judge(self, sample: Sample, answer: asyncio.Future[Arrays] | ServerError) -> None:
        if isinstance(answer, ServerError):
            self._count(sample.version, _outcome(answer))
            return
        try:
            found = await answer
        except ServerError as error:
            self._count(sample.version, _outcome(error))
            return
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._thread, _differences, sample, found)
        if isinstance(result, Outcome):
            self._count(sample.version, result)
        elif sample.version in self.figures:
            self.figures[sample.version].add(result)

    def close(self) -> None:
        """What waits is let go, and a run for it is ended: nobody is to wait for a shadow."""
        self._closed = True
        for sample in self._samples:
            self._count(sample.version, Outcome.GONE)
        self.waiting -= len(self._samples)
        self.bytes -= sum(sample.size for sample in self._samples)
        self._samples.clear()
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)


class Mirrors:
    """All of a process; a source of `Metrics`."""

    def __init__(self) -> None:
        self._held: dict[Servable, Mirror] = {}

    def follow(self, ready: Sequence[tuple[PlannedModel, Servable]]) -> None:
        """Connects every shadow with those of its name that answer. `ready`: all that may serve now."""
        shadows = {servable: planned for planned, servable in ready if planned.role is Role.SHADOW}
        for servable in [servable for servable in self._held if servable not in shadows]:
            self._held.pop(servable).close()
            servable.stand_forward()
        for servable in shadows.keys() - self._held.keys():
            servable.stand_back()
            servable.mirror = self._held[servable] = Mirror(servable)
        answering = [servable for _, servable in ready if servable not in shadows]
        for servable in answering:
            servable.mirrors = tuple(
                mirror
                for shadow, mirror in self._held.items()
                if shadow.name == servable.name and shadows[shadow].weight
            )
        for shadow, mirror in self._held.items():
            mirror.follow(shadows[shadow].weight, tuple(s for s in answering if s.name == shadow.name))

    def lines(self) -> Iterator[str]:
        """Of Prometheus' text; nothing where there is no shadow."""
        found = [
            ((mirror.shadow.name, version, mirror.shadow.version), figures)
            for mirror in self._held.values()
            for version, figures in mirror.figures.items()
        ]
        runs = [((m.shadow.name, m.shadow.version), m.shadow.run_seconds) for m in self._held.values()]
        return render(found, runs)


def _differences(sample: Sample, found: Arrays) -> dict[str, Difference] | Outcome:
    for expected, array in zip(sample.expected, found, strict=True):
        if expected.dtype != array.dtype:
            return Outcome.DATATYPE
        if expected.shape != array.shape:
            return Outcome.SHAPE
    pairs = zip(sample.outputs, sample.expected, found, strict=True)
    return {name: compare(expected, array) for name, expected, array in pairs}


def _outcome(error: ServerError) -> Outcome:
    kinds = (
        (InvalidRequest, Outcome.REFUSED),
        (QueueFull, Outcome.BUSY),
        (DeadlineExceeded, Outcome.TIMEOUT),
        (Unavailable, Outcome.GONE),
    )
    return next((outcome for kind, outcome in kinds if isinstance(error, kind)), Outcome.FAILED)


def _size(array: npt.NDArray[Any]) -> int:
    """Bytes, with those of strings."""
    return array.nbytes + (sum(map(len, array.flat)) if array.dtype.hasobject else 0)
