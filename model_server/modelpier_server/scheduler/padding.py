"""Requests of different lengths in one run: the shorter ones are padded, and what they get back is cut.

Only with the model's mask named and a value for every input of that length (`Batching.padding`, `Batching.mask`), and
only where `padding_probe` has shown before the model serves that a padded row's outputs are those of the row alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]

AXIS = 1
"""Of the inputs that are padded: behind the batch."""
SHORTEST = 8


def bucket(length: int) -> int:
    """Requests of the same bucket share runs. Four per power of two: a run holds at most a quarter of padding, beyond
    SHORTEST.
    """
    if length <= SHORTEST:
        return SHORTEST
    unit = 1 << (length.bit_length() - 3)
    return -(-length // unit) * unit


@dataclass(frozen=True)
class Padding:
    values: Mapping[str, float]
    """By input."""
    cuts: Mapping[str, tuple[int, ...]]
    """Axes of the outputs that have the length."""

    def length(self, inputs: Arrays) -> int | None:
        """None where the inputs do not agree on one: that request runs alone, and the model says what is wrong."""
        lengths = {inputs[name].shape[AXIS] for name in self.values}
        return lengths.pop() if len(lengths) == 1 else None

    def shapes(self, inputs: Arrays, names: Iterable[str]) -> tuple[tuple[int, ...], ...] | None:
        """Of the inputs without rows, and with their bucket as length: equal ones can share a run. None where this one
        cannot.
        """
        length = self.length(inputs)
        if length is None:
            return None
        padded = bucket(length)
        return tuple(
            (padded, *inputs[name].shape[2:]) if name in self.values else inputs[name].shape[1:] for name in names
        )

    def join(self, requests: Sequence[Arrays]) -> dict[str, npt.NDArray[Any]]:
        """Inputs of one run: padded to the longest, which may be less than the bucket."""
        longest = max(self.length(inputs) or 0 for inputs in requests)
        return {
            name: _padded([inputs[name] for inputs in requests], longest, self.values[name])
            if name in self.values
            else np.concatenate([inputs[name] for inputs in requests])
            for name in requests[0]
        }

    def cut(self, names: Sequence[str], arrays: list[npt.NDArray[Any]], inputs: Arrays) -> list[npt.NDArray[Any]]:
        """Outputs of one request, in the order of `names`, without the padding."""
        length = self.length(inputs) or 0
        return [_shortened(array, self.cuts.get(name, ()), length) for name, array in zip(names, arrays, strict=True)]


def _padded(arrays: Sequence[npt.NDArray[Any]], longest: int, value: float) -> npt.NDArray[Any]:
    if all(array.shape[AXIS] == longest for array in arrays):
        return np.concatenate(arrays)
    rows = sum(len(array) for array in arrays)
    whole = np.full((rows, longest, *arrays[0].shape[AXIS + 1 :]), value, arrays[0].dtype)
    start = 0
    for array in arrays:
        whole[start : start + len(array), : array.shape[AXIS]] = array
        start += len(array)
    return whole


def _shortened(array: npt.NDArray[Any], axes: tuple[int, ...], length: int) -> npt.NDArray[Any]:
    if not axes:
        return array
    return array[tuple(slice(length) if axis in axes else slice(None) for axis in range(array.ndim))]
