"""What a model does with batches, found out by running it before it serves.

Batching must be right before it is fast. A graph may say that its first axis is a batch and still mix rows (a
cumulative sum, a normalisation over the batch): only a comparison of batched with single runs shows it. And on CPUs
many models gain nothing from batches, or lose: the best number of rows is measured.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpier_server.contract import Batching, FailureReason, TensorSpec
from modelpier_server.errors import ModelError, OutOfMemory, ServerError
from modelpier_server.protocol.datatypes import DATATYPES, FLOATS
from modelpier_server.runtime.session import Session
from modelpier_server.scheduler.padding import Padding

SIZES = (8, 1, 16, 64, 224)
"""Tried for variable sizes other than the rows, until a run succeeds."""
ROWS_COMPARED = 3
REACHES = (1000, 100, 10)
"""How far the values go of the rows beside the one that is looked at; the first that the model takes, as whole numbers
may be indices.
"""
SHARE = 0.9
"""The fewest rows that reach this share of the best throughput are chosen: more would only add latency."""
SLOWEST = 1.0
"""Seconds: a model that takes longer for one row is not run again and again to find out about batches."""
RUN_LIMIT = 0.25
"""Seconds: no more rows are tried once a run takes longer."""
STEP = 4
"""Times as many rows are tried each time; one size in between is tried when it may be enough."""
FLAT = 1.05
"""No more rows are tried once STEP times as many bring less than this times the rate."""
HOPELESS = SHARE / 2
"""Of the best rate: twice the rows bring at most twice the rate, so that those in between need not be tried."""
MEASURE_LIMIT = 0.02
"""Seconds after which a size is not run once more to be measured better."""
ELEMENTS_LIMIT = 1 << 24
"""Elements of one input: no more rows are tried beyond."""

CPU = "CPUExecutionProvider"
_DEPENDS = "off: output '{}' of a row depends on the other rows"

Feeds = dict[str, npt.NDArray[Any]]


@dataclass(slots=True)
class Finding:
    """What a probe found."""

    max_rows: int
    """Rows that one run may hold; 0: requests never share a run."""
    why: str
    size: int = SIZES[0]
    """What variable sizes other than the rows may be."""
    padding: Padding | None = None
    """How requests of different lengths share a run; None: they do not."""
    costs: list[tuple[int, float]] = field(default_factory=list)
    """(input elements, seconds) of the runs."""


def probe(session: Session, wanted: Batching) -> Finding:
    """Blocking; takes up to some seconds. A model that refuses every synthetic input may like real ones.

    Raises ModelError(OUT_OF_MEMORY).
    """
    random = np.random.default_rng(0)
    size, error = _fitting_size(session, random)
    if size is None:
        return Finding(0, f"off: no synthetic input could be run: {error}")
    finding = Finding(0, "", size=size)
    one_row = _measure(session, make_feeds(session, 1, size, random), finding)
    finding.why = (
        f"off: one row takes {one_row:.1f} s" if one_row > SLOWEST else _verdict(session, wanted, size, random)
    )
    if not finding.why:
        _choose_rows(session, wanted.max_rows, size, one_row, finding)
    return finding


def _fitting_size(session: Session, random: np.random.Generator) -> tuple[int | None, str]:
    error = ""
    for size in SIZES:
        try:
            session.run(make_feeds(session, 1, size, random), _outputs(session))
        except OutOfMemory as failure:
            raise ModelError(FailureReason.OUT_OF_MEMORY, f"warm-up: {failure}") from failure
        except ServerError as failure:
            error = error or str(failure)
        else:
            return size, ""
    return None, error


def _verdict(session: Session, wanted: Batching, size: int, random: np.random.Generator) -> str:
    """Why requests must not share a run; empty if they may."""
    if not wanted.enabled:
        return "off: by configuration"
    if reason := axis_objection(session):
        return f"off: {reason}"
    try:
        return _disagreement(session, size, random)
    except ServerError as error:
        return f"off: a batch of {ROWS_COMPARED} rows fails: {error}"


def axis_objection(session: Session) -> str:
    """Why the first axis cannot be the batch: all inputs and outputs must share a variable one. Unnamed sizes may be
    the same.
    """
    symbols = set()
    for spec in (*session.inputs, *session.outputs):
        axes = session.axes[spec.name]
        if not axes:
            return f"'{spec.name}' has no axes"
        if isinstance(axes[0], int):
            return f"the first size of '{spec.name}' is fixed"
        symbols.add(axes[0])
    symbols.discard(None)
    symbols.discard("")
    return f"the first sizes have different names: {', '.join(sorted(map(str, symbols)))}" if len(symbols) > 1 else ""


def _disagreement(session: Session, size: int, random: np.random.Generator) -> str:
    feeds = make_feeds(session, ROWS_COMPARED, size, random)
    batched = session.run(feeds, _outputs(session))
    for row in range(ROWS_COMPARED):
        single = session.run({name: array[row : row + 1] for name, array in feeds.items()}, _outputs(session))
        for spec, together, alone in zip(session.outputs, batched, single, strict=True):
            if together.shape[:1] != (ROWS_COMPARED,) or alone.shape[:1] != (1,):
                return f"off: output '{spec.name}' has not one row per row of input"
            if not same(spec, together[row : row + 1], alone):
                return _DEPENDS.format(spec.name)
    return _mixture(session, feeds, batched, random)


def _mixture(session: Session, feeds: Feeds, batched: list[npt.NDArray[Any]], random: np.random.Generator) -> str:
    """The output that is another one for a row beside rows unlike it: what is made of the largest value of all rows,
    say, and used only beyond some threshold, stays unseen among ordinary ones. The row itself stays ordinary, and so
    does what its numbers are good for.
    """
    for row, sign in ((0, 1), (ROWS_COMPARED - 1, -1)):
        for reach in REACHES:
            try:
                mixed = session.run(_beside(session, feeds, row, sign * reach, random), _outputs(session))
            except ServerError:
                continue
            for spec, among, before in zip(session.outputs, mixed, batched, strict=True):
                if not same(spec, among[row : row + 1], before[row : row + 1]):
                    return _DEPENDS.format(spec.name)
            break
    return ""


def _beside(session: Session, feeds: Feeds, row: int, reach: int, random: np.random.Generator) -> Feeds:
    """`feeds` with other values in all rows but `row`; also below zero where `reach` is."""
    made: Feeds = {}
    # CPUs check what they take for an index. Other devices may not, and what is read out of bounds there ends them.
    checked = session.provider == CPU
    for spec in session.inputs:
        shape = feeds[spec.name].shape
        far = checked or spec.datatype in FLOATS or spec.datatype == "BYTES"
        made[spec.name] = _far(spec, shape, reach, random) if far else synthetic(spec, shape, random)
        made[spec.name][row] = feeds[spec.name][row]
    return made


def _far(spec: TensorSpec, shape: tuple[int, ...], reach: int, random: np.random.Generator) -> npt.NDArray[Any]:
    dtype = DATATYPES[spec.datatype].numpy
    if spec.datatype in FLOATS:
        return (random.standard_normal(shape, np.float32) * np.float32(reach)).astype(dtype)
    if spec.datatype == "BYTES":
        return np.full(shape, " ".join(["Some words, 1234."] * (abs(reach) // 10)), np.object_)
    if spec.datatype == "BOOL":
        return random.integers(0, 2, shape).astype(dtype)
    limits = np.iinfo(dtype)
    low, high = max(min(reach, 0), int(limits.min)), min(abs(reach), int(limits.max))
    return random.integers(low, high, shape).astype(dtype)


def same(spec: TensorSpec, left: npt.NDArray[Any], right: npt.NDArray[Any]) -> bool:
    """As far as another order of additions allows."""
    if left.shape != right.shape:
        return False
    if spec.datatype not in FLOATS:
        return bool(np.array_equal(left, right))
    # Other kernels are chosen for other sizes: sums in another order differ in their last digits.
    relative = 2e-2 if spec.datatype in {"FP16", "BF16"} else 1e-3
    a, b = left.astype(np.float64), right.astype(np.float64)
    scale = float(np.max(np.abs(b[np.isfinite(b)]), initial=0.0))
    return bool(np.allclose(a, b, rtol=relative, atol=relative * 1e-2 * scale + 1e-9, equal_nan=True))


def _choose_rows(session: Session, limit: int, size: int, one_row: float, finding: Finding) -> None:
    random = np.random.default_rng(1)
    rates = {1: 1 / one_row}

    def better(rows: int) -> bool:
        """Whether these rows bring more than any before, and even more may."""
        feeds = make_feeds(session, rows, size, random)
        if max(array.size for array in feeds.values()) > ELEMENTS_LIMIT:
            return False
        try:
            seconds = _measure(session, feeds, finding)
        except ServerError:
            return False
        best = max(rates.values())
        rates[rows] = rows / seconds
        return rates[rows] >= FLAT * best and seconds <= RUN_LIMIT

    rows = 1
    while rows < limit:
        rows = min(STEP * rows, limit)
        if not better(rows):
            break
    chosen = _enough(rates)
    fewer = max((tried for tried in rates if tried < chosen), default=0)
    if chosen > fewer + 1 > 1 and rates[fewer] >= HOPELESS * max(rates.values()):
        better(max(fewer + 1, chosen // 2))
        chosen = _enough(rates)
    if chosen > 1:
        finding.max_rows = chosen
        finding.why = (
            f"on: up to {chosen} rows, {rates[chosen] / rates[1]:.1f} times the rows per second of single ones"
        )
    else:
        finding.why = "off: batches bring no more rows per second than single runs"


def _enough(rates: Mapping[int, float]) -> int:
    """The fewest rows that come close to the best rate."""
    best = max(rates.values())
    return min(rows for rows, rate in rates.items() if rate >= SHARE * best)


def _measure(session: Session, feeds: Feeds, finding: Finding) -> float:
    """Seconds of the shortest of a few runs after a first one, which may still allocate."""
    outputs, shortest, begin = _outputs(session), float("inf"), time.perf_counter()
    for count in range(1, 5):
        start = time.perf_counter()
        session.run(feeds, outputs)
        end = time.perf_counter()
        shortest = min(shortest, end - start)
        if shortest > RUN_LIMIT or (count > 1 and end - begin > MEASURE_LIMIT):
            break
    finding.costs.append((sum(array.size for array in feeds.values()), shortest))
    return max(shortest, 1e-9)


def make_feeds(session: Session, rows: int, size: int, random: np.random.Generator) -> Feeds:
    """Synthetic inputs: `rows` for variable first axes, `size` for all other variable ones; 0 and 1 for whole numbers,
    which are indices more often than not.
    """
    return {spec.name: synthetic(spec, _shape(session.axes, spec, rows, size), random) for spec in session.inputs}


def _shape(axes: Mapping[str, tuple[int | str | None, ...]], spec: TensorSpec, rows: int, size: int) -> tuple[int, ...]:
    named = axes[spec.name]
    return tuple(
        axis if isinstance(axis, int) and axis >= 0 else (rows if index == 0 else size)
        for index, axis in enumerate(named)
    )


def synthetic(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> npt.NDArray[Any]:
    """Values of one input."""
    datatype = DATATYPES[spec.datatype]
    if spec.datatype in FLOATS:
        return random.standard_normal(shape, np.float32).astype(datatype.numpy)
    if spec.datatype == "BYTES":
        return random.choice(np.array(["a", "b", "c"], np.object_), shape)
    return random.integers(0, 2, shape).astype(datatype.numpy)


def _outputs(session: Session) -> list[str]:
    return [spec.name for spec in session.outputs]
