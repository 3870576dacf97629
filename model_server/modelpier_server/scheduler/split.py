"""A request with more rows than one run may hold: run in pieces, answered as one.

`Servable` makes a Split where rows do not know each other. One piece waits in the queue at a time; when it starts, the
next one goes to the end of the queue: whoever has come meanwhile gets a run in between.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from modelpier_server.errors import ServerError
from modelpier_server.scheduler.work import Arrays, Work


class Host(Protocol):
    """The servable that runs the pieces."""

    def leave(self, work: Work) -> None:
        """Takes a work out, wherever it is."""

    def withdraw(self, work: Work) -> None:
        """The same because its caller has left."""

    def take_whole(self, work: Work) -> None:
        """Runs a work as it is, in no run with others."""

    def split_ended(self, split: Split) -> None:
        """No further piece of it will be made."""


class Piece(Work):
    __slots__ = ("split", "start")

    part: ClassVar[bool] = True

    def __init__(self, split: Split, start: int, rows: int) -> None:
        whole = split.whole
        inputs = {name: array[start : start + rows] for name, array in whole.inputs.items()}
        super().__init__(inputs, whole.outputs, whole.deadline)
        self.order = time.perf_counter_ns() + whole.order - whole.arrived
        self.arrived = whole.arrived
        self.record = whole.record
        self.key = whole.key
        self.rows = rows
        self.elements = whole.elements * rows // whole.rows
        self.split = split
        self.start = start

    def succeed(self, arrays: Arrays) -> bool:  # noqa: ARG002 - `collect` has stored them
        """Of the last piece: answers the whole."""
        return self.split.succeed()

    def fail(self, error: ServerError) -> None:
        self.split.fail(self, error)


class Split:
    """Owner of the whole while its pieces are under way. Only the event loop touches it."""

    def __init__(self, whole: Work, most: int, host: Host) -> None:
        self.whole = whole
        self.inputs = whole.inputs
        """Also after the whole was answered and has let go of them: for shadows."""
        self._most = most
        self._host = host
        self._cut = 0
        """Rows that pieces have been made of."""
        self._done = 0
        self._live: list[Piece] = []
        self.outputs: list[npt.NDArray[Any]] = []
        self._over = False
        whole.owner = self

    def next(self) -> Piece | None:
        """None when there is nothing left to run."""
        rows = min(self._most, self.whole.rows - self._cut)
        if self._over or not rows:
            return None
        piece = Piece(self, self._cut, rows)
        self._cut += rows
        self._live.append(piece)
        if self._cut == self.whole.rows:
            self._host.split_ended(self)
        return piece

    @property
    def uncut(self) -> int:
        """Input elements of which no piece has been made yet."""
        return self.whole.elements * (self.whole.rows - self._cut) // self.whole.rows

    def collect(self, piece: Piece, arrays: Arrays) -> bool:
        """Whether the outputs of all rows are there now."""
        if not self._store(piece, arrays):
            # Rows of other pieces have other sizes: only the model itself can put them into one tensor.
            self._end(piece)
            self._host.take_whole(self.whole)
            return False
        self._live.remove(piece)
        self._done += piece.rows
        return self._done == self.whole.rows

    def _store(self, piece: Piece, arrays: Arrays) -> bool:
        """Copies piece by piece: all at the end would keep the event loop for long."""
        if not self.outputs:
            self.outputs = [np.empty((self.whole.rows, *array.shape[1:]), array.dtype) for array in arrays]
        for whole, array in zip(self.outputs, arrays, strict=True):
            if array.shape != (piece.rows, *whole.shape[1:]):
                return False
            whole[piece.start : piece.start + piece.rows] = array
        return True

    def succeed(self) -> bool:
        whole, self._over = self.whole, True
        whole.release()
        return whole.succeed(self.outputs)

    def fail(self, piece: Piece, error: ServerError) -> None:
        self._end(piece)
        self.whole.release()
        self.whole.fail(error)

    def withdraw(self, work: Work) -> None:  # noqa: ARG002 - it owns no other than the whole
        """The caller of the whole has left: counted once."""
        first = self._live[0]
        self._end(first)
        self.whole.release()
        self._host.withdraw(first)

    def _end(self, piece: Piece) -> None:
        """No further piece runs; `piece` itself is its caller's."""
        self._over, live, self._live = True, self._live, []
        self._host.split_ended(self)
        for other in live:
            if other is not piece:
                self._host.leave(other)
