"""What the scheduler runs: a loaded model.

A Protocol, because models run in this process (`onnx.OrtSession`) or, behind the same face, in others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from modelpier_server.contract import TensorSpec
from modelpier_server.runtime.tensors import Axes


class Control:
    """Ends a run from another thread than the one that is in it. Who may want to end a run makes one and hands it over;
    the session says how. It serves any number of runs, one at a time, until it is used.
    """

    __slots__ = ("_end", "aborted", "handle")

    def __init__(self) -> None:
        self.aborted = False
        self.handle: Any = None
        """What the session that runs under it keeps here for its next run."""
        self._end: Callable[[], None] | None = None

    def begin(self, end: Callable[[], None]) -> None:
        """Called by the session right before its first run. An abort that came earlier counts for this run, too."""
        self._end = end
        if self.aborted:
            end()

    def abort(self) -> None:
        self.aborted = True
        if self._end is not None:
            self._end()


class Joined(Mapping[str, npt.NDArray[Any]]):
    """Inputs of several requests, row after row. They are put together when one is asked for: a session that has memory
    of its own for them takes `parts`, and copies them once.
    """

    def __init__(self, parts: Mapping[str, Sequence[npt.NDArray[Any]]]) -> None:
        self.parts = parts

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return np.concatenate(self.parts[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


class Session(Protocol):
    """A loaded model. `run` may be called by several threads at once."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def axes(self) -> Mapping[str, Axes]:
        """Sizes and symbols of every input and output by name."""

    @property
    def provider(self) -> str:
        """The first execution provider, which the model really runs on."""

    @property
    def instances(self) -> int:
        """How many runs at once make sense."""

    @property
    def caller_only(self) -> bool:
        """Whether a run uses the calling thread alone: its CPU time is then what it costs, whoever else is busy."""

    @property
    def on_loop(self) -> bool:
        """Whether very short runs may take place on the event loop: not where they wait for another process."""

    @property
    def joins(self) -> bool:
        """Whether `run` is better off with `Joined` than with arrays."""

    @property
    def lost(self) -> Future[str] | None:
        """Done when the process of the model has ended by itself, with how it did. None: it lives in this one."""

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str], control: Control | None = None
    ) -> list[npt.NDArray[Any]]:
        """Blocking. Raises InvalidRequest when the model refuses the values, InferenceFailed when it fails, Cancelled
        when `control` has ended it.
        """

    def prepare(self, most: int) -> None:
        """Blocking; before it serves. Rows do not know each other, and a run will hold `most` of them at most."""

    def close(self) -> None:
        """Gives the memory back; no run may be under way."""
