"""Golden tests: a model that brings examples must answer them as they say before it serves.

`bringup` calls `check` after warm-up, in a thread, on the loaded model as requests will find it, whether it runs in
this process or in one of its own.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpier_server.contract import FailureReason, GoldenTests
from modelpier_server.errors import Cancelled, ModelError, OutOfMemory, ServerError
from modelpier_server.lifecycle import examples
from modelpier_server.lifecycle.examples import Example, refusal
from modelpier_server.protocol.datatypes import DATATYPES, FLOATS
from modelpier_server.protocol.signature import Signature
from modelpier_server.runtime import Control, Session

TIME_LIMIT = 120.0
"""Seconds for all tests of a model."""
_FLOATS = {DATATYPES[name].numpy for name in FLOATS}


def check(session: Session, folder: Path, wanted: GoldenTests, limit: float = TIME_LIMIT) -> int:
    """How many were run. Raises ModelError: GOLDEN_TEST_FAILED, OUT_OF_MEMORY."""
    signature = Signature.of(session.inputs, session.outputs)
    end, count = time.monotonic() + limit, 0
    for example in examples.read(folder, signature):
        count += 1
        if count > examples.MOST_TESTS:
            raise refusal(example.name, f"only {examples.MOST_TESTS} tests are run; ship fewer")
        arrays = _run(session, example, end - time.monotonic(), limit)
        for name, got in zip(example.outputs, arrays, strict=True):
            if text := _difference(got, example.outputs[name], wanted):
                raise refusal(example.name, f"output '{name}' {text}")
    return count


def _run(session: Session, example: Example, left: float, limit: float) -> list[npt.NDArray[Any]]:
    control = Control()
    timer = threading.Timer(max(0.0, left), control.abort)
    timer.daemon = True
    timer.start()
    try:
        return session.run(example.inputs, [*example.outputs], control)
    except Cancelled as error:
        raise refusal(example.name, f"not finished {limit:g} s after the first test began") from error
    except OutOfMemory as error:
        raise ModelError(FailureReason.OUT_OF_MEMORY, f"{example.name}: {error}") from error
    except ServerError as error:
        raise refusal(example.name, f"the run failed: {error}") from error
    finally:
        timer.cancel()


def _difference(got: npt.NDArray[Any], expected: npt.NDArray[Any], wanted: GoldenTests) -> str:
    """What is wrong, for people; empty if nothing is."""
    if got.dtype != expected.dtype:
        return f"is {got.dtype}, but the test expects {expected.dtype}"
    if got.shape != expected.shape:
        return f"has the shape {list(got.shape)}, but the test expects {list(expected.shape)}"
    if got.dtype not in _FLOATS:
        wrong = np.atleast_1d(got != expected)
        text = f"differs in {np.count_nonzero(wrong)} of {got.size} elements{_first(got, expected, wrong)}"
        return text if wrong.any() else ""
    return _distance(got, expected, wanted)


def _distance(got: npt.NDArray[Any], expected: npt.NDArray[Any], wanted: GoldenTests) -> str:
    one, other = np.atleast_1d(got.astype(np.float64)), np.atleast_1d(expected.astype(np.float64))
    wrong = ~np.isclose(one, other, rtol=wanted.relative, atol=wanted.absolute, equal_nan=True)
    if not wrong.any():
        return ""
    with np.errstate(all="ignore"):
        same = (one == other) | (np.isnan(one) & np.isnan(other))  # infinities of one sign, too
        apart = np.where(same, 0.0, np.abs(one - other))
        share = np.where(same, 0.0, apart / np.abs(other))
    return (
        f"differs in {np.count_nonzero(wrong)} of {got.size} elements: by {_largest(apart)} at most, relatively by "
        f"{_largest(share)} at most (allowed: {wanted.absolute:g} + {wanted.relative:g} of what is expected)"
        f"{_first(one, other, wrong)}; tolerances are model.tests.absoluteTolerance and relativeTolerance"
    )


def _largest(values: npt.NDArray[Any]) -> str:
    """NaN where one of the two is no number."""
    return f"{np.max(values):.3g}"


def _first(got: npt.NDArray[Any], expected: npt.NDArray[Any], wrong: npt.NDArray[Any]) -> str:
    if not wrong.any():
        return ""
    place = tuple(np.argwhere(wrong)[0])
    values = (str(np.atleast_1d(array)[place])[:50] for array in (got, expected))
    return f", first at {[int(index) for index in place]}: {' in place of '.join(values)}"
