"""Whether a model's rows may be padded, found out by running it before it serves.

`Servable.warm_up` calls it once `probe` has found that requests may share runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpier_server.contract import Batching
from modelpier_server.errors import ServerError
from modelpier_server.runtime.session import Session
from modelpier_server.scheduler.padding import AXIS, Padding
from modelpier_server.scheduler.probe import Feeds, make_feeds, same, synthetic

LENGTHS = ((5, 9), (16, 24), (64, 96), (128, 160))
"""Tried until the model takes both: some take multiples alone."""


@dataclass(frozen=True)
class Refusal:
    """Why rows are not padded."""

    why: str


def find_padding(session: Session, wanted: Batching, size: int) -> Padding | Refusal:
    """Blocking. `size` is what other variable sizes may be."""
    if reason := _objection(session, wanted):
        return Refusal(reason)
    random = np.random.default_rng(2)
    for lengths in LENGTHS:
        pair = [_feeds(session, wanted, size, length, random) for length in lengths]
        alone = [_run(session, feeds) for feeds in pair]
        if alone[0] is not None and alone[1] is not None:
            return _compare(session, wanted, pair, (alone[0], alone[1]), lengths)
    return Refusal("no two lengths could be run")


def _objection(session: Session, wanted: Batching) -> str:
    """What the signature says against it; empty if nothing."""
    if unknown := sorted(wanted.padding.keys() - {spec.name for spec in session.inputs}):
        return f"the model has no input '{unknown[0]}'"
    if wanted.mask not in wanted.padding:
        return "mask must name one of the inputs that are padded"
    symbols = set()
    for spec in session.inputs:
        if spec.name in wanted.padding:
            if len(spec.shape) <= AXIS or spec.shape[AXIS] != -1 or spec.datatype == "BYTES":
                return f"input '{spec.name}' has no variable length"
            symbols.add(session.axes[spec.name][AXIS])
    for spec in session.inputs:
        shared = symbols.intersection(session.axes[spec.name][1:]) - {None, ""}
        if spec.name not in wanted.padding and shared:
            return f"input '{spec.name}' has the length '{min(map(str, shared))}' too, and no value to be padded with"
    return ""


def _feeds(session: Session, wanted: Batching, size: int, length: int, random: np.random.Generator) -> Feeds:
    """One row of that length. All of it counts, as the mask says."""
    feeds = make_feeds(session, 1, size, random)
    for spec in session.inputs:
        if spec.name in wanted.padding:
            shape = (1, length, *feeds[spec.name].shape[AXIS + 1 :])
            feeds[spec.name] = synthetic(spec, shape, random)
    feeds[wanted.mask] = np.ones_like(feeds[wanted.mask])
    return feeds


def _run(session: Session, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]] | None:
    """None where the model refuses."""
    try:
        return session.run(feeds, [spec.name for spec in session.outputs])
    except ServerError:
        return None


def _compare(
    session: Session,
    wanted: Batching,
    pair: list[Feeds],
    alone: tuple[Sequence[npt.NDArray[Any]], Sequence[npt.NDArray[Any]]],
    lengths: tuple[int, int],
) -> Padding | Refusal:
    names = [spec.name for spec in session.outputs]
    cuts: dict[str, tuple[int, ...]] = {}
    for name, short, long in zip(names, *alone, strict=True):
        sizes = list(zip(short.shape, long.shape, strict=False))
        if short.ndim != long.ndim or any(a != b and (a, b) != lengths for a, b in sizes):
            return Refusal(f"output '{name}' follows from the length in a way of its own")
        cuts[name] = tuple(axis for axis, size in enumerate(sizes) if size == lengths)
    padding = Padding(dict(wanted.padding), {name: axes for name, axes in cuts.items() if axes})
    together = _run(session, padding.join(pair))
    if together is None:
        return Refusal("a padded run fails")
    for row, feeds in enumerate(pair):
        cut = padding.cut(names, [array[row : row + 1] for array in together], feeds)
        for spec, padded, expected in zip(session.outputs, cut, alone[row], strict=True):
            if not same(spec, padded, expected):
                return Refusal(f"output '{spec.name}' of a row depends on its padding")
    return padding
