"""Triton's classification extension: the n highest elements of an output as text, `value:index`.

Called by `infer_response` for the outputs that were asked for so. Source: Triton's `extension_classification.md`;
numbers are written as its server does (six digits after the point for floats). NaN is never among the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol.datatypes import DATATYPES, FLOATS
from modelpier_server.protocol.signature import Slot

ELEMENTS_LIMIT = 1_000_000
"""Triton's own; sorting more would keep everybody else waiting."""
UNSORTED = frozenset({"BYTES", "BOOL"})
"""Datatypes without classes to rank."""


def apply(
    classes: Mapping[str, int], slots: Sequence[Slot], arrays: Sequence[npt.NDArray[Any]]
) -> tuple[list[Slot], list[npt.NDArray[Any]]]:
    """The outputs with those in `classes` (name to n) replaced by their ranking. Raises InvalidRequest."""
    chosen = [
        _ranked(slot, array, classes[slot.name]) if slot.name in classes else (slot, array)
        for slot, array in zip(slots, arrays, strict=True)
    ]
    return [slot for slot, _ in chosen], [array for _, array in chosen]


def _ranked(slot: Slot, array: npt.NDArray[Any], count: int) -> tuple[Slot, npt.NDArray[Any]]:
    if array.size > ELEMENTS_LIMIT:
        raise InvalidRequest(f"output '{slot.name}': {array.size} elements are too many for classification")
    batch = slot.spec.shape[:1] == (-1,)
    rows = array.reshape(array.shape[0], -1) if batch and array.size else array.reshape(1, -1)
    ranked = np.empty((rows.shape[0], min(count, rows.shape[1])), np.object_)
    for row, values in enumerate(rows):
        ranked[row] = _texts(values, ranked.shape[1], slot.datatype.name in FLOATS)
    text = Slot(replace(slot.spec, datatype="BYTES"), DATATYPES["BYTES"])
    return text, ranked if batch else ranked[0]


def _texts(values: npt.NDArray[Any], count: int, real: bool) -> list[str]:
    if real:
        values = values.astype(np.float64)
    keys = np.where(np.isnan(values), -np.inf, values) if real else values
    # Stable from the back: of equal elements the one with the lower index comes first.
    order = len(keys) - 1 - np.argsort(keys[::-1], kind="stable")[::-1][:count]
    return [f"{values[i]:f}:{i}" if real else f"{values[i]}:{i}" for i in order.tolist()]
