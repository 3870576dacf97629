"""One run for several requests: put together, run, taken apart.

Called on the event loop for very short models and on runner threads for others; touches nothing but what it is handed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpier_server.errors import Cancelled, InferenceFailed, InvalidRequest, ServerError
from modelpier_server.runtime.session import Control, Joined, Session
from modelpier_server.scheduler.padding import Padding
from modelpier_server.scheduler.work import Arrays, Stage, Work

_clock = time.perf_counter_ns


@dataclass(slots=True, eq=False)
class Batch:
    """Works that share a run. `inputs` are kept apart from the works, which let go of theirs early."""

    works: list[Work]
    inputs: list[dict[str, npt.NDArray[Any]]]
    outputs: tuple[str, ...]
    elements: int
    started: int
    rest: list[Work] = field(default_factory=list)
    """Works whose run together with these has failed (`Suspects`)."""
    padding: Padding | None = None
    """Set where the works may differ in length."""
    control: Control | None = None
    """Ends the run."""

    def abandon(self) -> None:
        """Ends the run when nobody waits for it any longer."""
        if self.control is not None and all(work.stage is Stage.DONE for work in self.works):
            self.control.abort()


@dataclass(slots=True, eq=False)
class Outcome:
    """A result per work, in order, and nanoseconds of the run."""

    results: Sequence[Arrays | ServerError] | None
    """None: the run of several works failed, and who is to blame is not known."""
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


def execute(session: Session, batch: Batch) -> Outcome:
    if len(batch.works) == 1:
        return _alone(session, batch)
    start = _clock()
    feeds: Mapping[str, npt.NDArray[Any]]
    if batch.padding is not None:
        feeds = batch.padding.join(batch.inputs)
    else:
        parts = {name: [inputs[name] for inputs in batch.inputs] for name in batch.inputs[0]}
        feeds = Joined(parts) if session.joins else {name: np.concatenate(part) for name, part in parts.items()}
    ready = _clock()
    try:
        arrays = session.run(feeds, batch.outputs, batch.control)
        done = _clock()
        results = _split(arrays, batch)
    except ServerError:
        return Outcome(None, ready - start, _clock() - ready)
    return Outcome(results, ready - start, done - ready, _clock() - done)


def _alone(session: Session, batch: Batch) -> Outcome:
    start = _clock()
    result = _result(session, batch.inputs[0], batch)
    return Outcome([result], 0, _clock() - start)


def _result(session: Session, inputs: dict[str, npt.NDArray[Any]], batch: Batch) -> Arrays | ServerError:
    try:
        return session.run(inputs, batch.outputs, batch.control)
    except Cancelled:
        return InferenceFailed("the model did not end its run in time")
    except InferenceFailed as error:
        return _blame(session, inputs) or error
    except ServerError as error:
        return error


def _split(arrays: Arrays, batch: Batch) -> list[Arrays]:
    """Rows of the outputs back to the requests. Raises InferenceFailed where an output has not one row per row."""
    total = sum(work.rows for work in batch.works)
    for name, array in zip(batch.outputs, arrays, strict=True):
        if not array.ndim or array.shape[0] != total:
            raise InferenceFailed(f"output '{name}' has the shape {list(array.shape)} for {total} rows")
    results, start = [], 0
    for work, inputs in zip(batch.works, batch.inputs, strict=True):
        end = start + work.rows
        rows = [array[start:end] for array in arrays]
        results.append(batch.padding.cut(batch.outputs, rows, inputs) if batch.padding is not None else rows)
        start = end
    return results


def _blame(session: Session, inputs: dict[str, npt.NDArray[Any]]) -> InvalidRequest | None:
    """The caller's own mistake behind a failure: inputs that disagree on a size for which the model has one symbol."""
    seen: dict[str, tuple[str, int]] = {}
    for name, array in inputs.items():
        for axis, size in zip(session.axes[name], array.shape, strict=True):
            if isinstance(axis, str):
                other, expected = seen.setdefault(axis, (name, size))
                if size != expected:
                    return InvalidRequest(
                        f"inputs: '{axis}' is {expected} for '{other}' and {size} for '{name}'; it must be the same"
                    )
    return None
