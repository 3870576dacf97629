"""One request on its way through the scheduler.

The transport subclasses `Work` (its call writes the answer itself, without a task or a future per request);
`FutureWork` is for everybody else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from enum import Enum
from typing import Any, ClassVar, Protocol

import numpy.typing as npt

from modelpier_server.errors import ServerError
from modelpier_server.records import Record

Arrays = list[npt.NDArray[Any]]
Key = tuple[tuple[str, ...] | None, tuple[tuple[int, ...], ...]]
"""Works of the same key can share a run: same outputs, same shapes but for the rows."""


class Stage(Enum):
    NEW = 0
    QUEUED = 1
    RUNNING = 2
    DONE = 3


class Owner(Protocol):
    """Who has taken a work."""

    def withdraw(self, work: Work) -> None:
        """Gives its place back."""


class Work:
    """A checked request: what to run, until when, and whom to tell."""

    __slots__ = (
        "arrived",
        "deadline",
        "elements",
        "inputs",
        "key",
        "order",
        "outputs",
        "owner",
        "priority",
        "record",
        "rows",
        "stage",
    )

    part: ClassVar[bool] = False
    """Whether it is a piece of a larger one (`split.Piece`)."""

    def __init__(
        self, inputs: dict[str, npt.NDArray[Any]], outputs: tuple[str, ...] | None, deadline: float, priority: int = 0
    ) -> None:
        """`deadline` in seconds of `time.monotonic()`; `outputs` None: all. `priority`: 1 is the first, 0 the model's
        default.
        """
        self.inputs = inputs
        self.outputs = outputs
        self.deadline = deadline
        self.priority = priority
        self.arrived = self.order = time.perf_counter_ns()
        # `order` is its place in the queue: the smallest is next. It is the time of arrival unless something moved it.
        self.stage = Stage.NEW
        self.rows = 0
        """Rows of the first axis; 0 where it cannot share a run."""
        self.elements = 0
        self.key: Key | None = None
        self.owner: Owner | None = None
        self.record: Record | None = None
        """Set where traces or the access log want to know what becomes of it."""

    def succeed(self, arrays: Arrays) -> bool:
        """Called on the loop, once. False: the outputs could not be made an answer (and the caller was told so)."""
        raise NotImplementedError

    def fail(self, error: ServerError) -> None:
        """Called on the loop, once."""
        raise NotImplementedError

    def cancel(self) -> None:
        """The caller is gone: frees the place in the queue, or drops the answer of a run under way."""
        if self.owner is not None:
            self.owner.withdraw(self)

    def release(self) -> None:
        """Done: nothing of the request is held any longer."""
        self.stage = Stage.DONE
        self.owner = None
        self.inputs = {}


class FutureWork(Work):
    """Hands the outputs to a future; cancelling the future cancels the work."""

    __slots__ = ("future",)

    def __init__(
        self, inputs: dict[str, npt.NDArray[Any]], outputs: Sequence[str] | None, deadline: float, priority: int = 0
    ) -> None:
        super().__init__(inputs, None if outputs is None else tuple(outputs), deadline, priority)
        self.future: asyncio.Future[Arrays] = asyncio.get_running_loop().create_future()
        self.future.add_done_callback(self._settled)

    def succeed(self, arrays: Arrays) -> bool:
        if not self.future.done():
            self.future.set_result(arrays)
        return True

    def fail(self, error: ServerError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def _settled(self, future: asyncio.Future[Arrays]) -> None:
        if future.cancelled():
            self.cancel()
