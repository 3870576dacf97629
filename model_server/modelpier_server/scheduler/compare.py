"""How two tensors for the same request differ. `mirror` calls it in a thread of its own, never on the event loop.

Works through blocks of rows, so that the comparison of a large output needs little memory beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpier_server.contract import OutputDifference
from modelpier_server.protocol.datatypes import DATATYPES, FLOATS

BLOCK = 1 << 17
"""Elements that are looked at at a time; of a longer row all."""
_FLOAT_TYPES = frozenset(DATATYPES[name].numpy for name in FLOATS)
_LARGEST = 1e300
"""Differences beyond are told as this one: sums of them must stay numbers that JSON has."""

Array = npt.NDArray[Any]


@dataclass(slots=True, eq=False)
class Difference:
    """Of one output: of one request, or by `add` of many."""

    elements: int = 0
    equal: int = 0
    nonfinite: int = 0
    floats: int = 0
    """Elements whose difference was measured."""
    max_absolute: float = 0.0
    sum_absolute: float = 0.0
    max_relative: float = 0.0
    rows: int = 0
    least_cosine: float = 1.0
    sum_cosine: float = 0.0
    top1_rows: int = 0
    top1_agreed: int = 0

    def add(self, other: Difference) -> None:
        self.elements += other.elements
        self.equal += other.equal
        self.nonfinite += other.nonfinite
        self.floats += other.floats
        self.max_absolute = max(self.max_absolute, other.max_absolute)
        self.sum_absolute = min(self.sum_absolute + other.sum_absolute, _LARGEST)
        self.max_relative = max(self.max_relative, other.max_relative)
        self.rows += other.rows
        self.least_cosine = min(self.least_cosine, other.least_cosine)
        self.sum_cosine += other.sum_cosine
        self.top1_rows += other.top1_rows
        self.top1_agreed += other.top1_agreed

    def report(self, name: str) -> OutputDifference:
        return OutputDifference(
            name,
            elements=self.elements,
            equal=self.equal,
            nonfinite=self.nonfinite,
            max_absolute=self.max_absolute,
            mean_absolute=self.sum_absolute / self.floats if self.floats else 0.0,
            max_relative=self.max_relative,
            rows=self.rows,
            least_cosine=self.least_cosine,
            mean_cosine=self.sum_cosine / self.rows if self.rows else 1.0,
            top1_rows=self.top1_rows,
            top1_agreed=self.top1_agreed,
        )


def compare(expected: Array, found: Array) -> Difference:
    """Of two tensors of one shape and datatype."""
    total = Difference()
    if not expected.size:
        return total
    if expected.dtype not in _FLOAT_TYPES:
        total.elements, total.equal = expected.size, int(np.count_nonzero(expected == found))
        return total
    classes = expected.shape[-1] if expected.ndim > 1 and expected.shape[-1] > 1 else 0
    rows = expected.shape[0] if expected.ndim > 1 else 1
    step = max(1, BLOCK // (expected.size // rows))
    left, right = expected.reshape(rows, -1), found.reshape(rows, -1)
    for start in range(0, rows, step):
        a = left[start : start + step].astype(np.float64)
        b = right[start : start + step].astype(np.float64)
        with np.errstate(all="ignore"):  # infinities are looked for, not stumbled upon
            total.add(_floats(a, b))
        if classes:
            agreed = a.reshape(-1, classes).argmax(axis=1) == b.reshape(-1, classes).argmax(axis=1)
            total.top1_rows += agreed.size
            total.top1_agreed += int(np.count_nonzero(agreed))
    return total


def _floats(a: Array, b: Array) -> Difference:
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = np.isfinite(a) & np.isfinite(b)
    if not finite.all():
        a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    absolute = np.minimum(np.abs(a - b), _LARGEST)
    largest = np.maximum(np.abs(a), np.abs(b))
    # Both halves, because the difference of two large numbers may not be a number any more.
    relative = np.abs(a / largest - b / largest)[largest > 0]
    cosines = _cosines(a, b)
    return Difference(
        elements=a.size,
        equal=int(np.count_nonzero(same)),
        nonfinite=int(np.count_nonzero(~finite & ~same)),
        floats=int(np.count_nonzero(finite)),
        max_absolute=float(absolute.max()),
        sum_absolute=min(float(absolute.sum()), _LARGEST),
        max_relative=float(relative.max(initial=0.0)),
        rows=len(a),
        least_cosine=float(cosines.min()),
        sum_cosine=float(cosines.sum()),
    )


def _cosines(a: Array, b: Array) -> Array:
    """Of each row; 1 for two rows of zeros, 0 where only one is."""
    a, b = _unit(a), _unit(b)
    cosines = np.clip(np.einsum("ij,ij->i", a, b), -1.0, 1.0)
    empty = ~a.any(axis=1) & ~b.any(axis=1)
    return np.where(empty, 1.0, cosines)


def _unit(rows: Array) -> Array:
    """Rows of length 1, or 0; scaled first, because squares of large and small numbers are none any more."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1.0)
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    return np.asarray(rows / np.where(length > 0, length, 1.0))
