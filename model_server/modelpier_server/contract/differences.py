"""What a shadow's answers differ in from those that callers got: part of a server's report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modelpier_server.contract import decoding


class Outcome(StrEnum):
    """What became of an answered request that was to be repeated on a shadow."""

    COMPARED = "compared"
    DROPPED = "dropped"  # too many, or too large ones, waited already
    REFUSED = "refused"  # the shadow does not take such inputs, or lacks an output
    DATATYPE = "datatype"  # an output has another one
    SHAPE = "shape"  # an output has another one
    BUSY = "busy"  # the shadow's own queue was full, or its wait too long
    TIMEOUT = "timeout"  # the shadow's `request_timeout` passed
    FAILED = "failed"  # the shadow failed
    GONE = "gone"  # the shadow left before its answer


@dataclass(frozen=True)
class OutputDifference:
    """One output in all requests that were compared. Measures of floats leave out elements that are `nonfinite`."""

    name: str
    elements: int = 0
    equal: int = 0
    """Elements that are exactly the same; NaN equals NaN."""
    nonfinite: int = 0
    """Elements of which only one side is NaN or infinite, or which are infinite with other signs."""
    max_absolute: float = 0.0
    mean_absolute: float = 0.0
    max_relative: float = 0.0
    """|a - b| / max(|a|, |b|): at most 2, whichever of the two is small."""
    rows: int = 0
    """Of floats: along the first axis; a vector is one row."""
    least_cosine: float = 1.0
    mean_cosine: float = 1.0
    top1_rows: int = 0
    """Rows along the last axis, of floats with at least two axes and two classes."""
    top1_agreed: int = 0


@dataclass(frozen=True)
class Comparison:
    """One shadow against one version that answers. `outcomes`: requests by `Outcome`."""

    version: str
    outcomes: Mapping[str, int] = field(default_factory=dict)
    outputs: tuple[OutputDifference, ...] = ()


def read_comparison(value: Any, where: str) -> Comparison:
    data = decoding.mapping(value, where)
    outcomes = decoding.mapping(data.get("outcomes") or {}, f"{where}.outcomes")
    outputs = decoding.array(data, "outputs", where) if data.get("outputs") else []
    return Comparison(
        version=decoding.text(data, "version", where),
        # A server that is newer than its operator may know further ones.
        outcomes={str(key): decoding.whole(outcomes, key, f"{where}.outcomes") for key in outcomes},
        outputs=tuple(_output(output, f"{where}.outputs[{i}]") for i, output in enumerate(outputs)),
    )


def _output(value: Any, where: str) -> OutputDifference:
    data = decoding.mapping(value, where)

    def whole(key: str) -> int:
        return decoding.whole(data, key, where, default=0)

    def number(key: str, default: float) -> float:
        return decoding.number(data.get(key, default), f"{where}.{key}")

    return OutputDifference(
        name=decoding.text(data, "name", where),
        elements=whole("elements"),
        equal=whole("equal"),
        nonfinite=whole("nonfinite"),
        max_absolute=number("max_absolute", 0.0),
        mean_absolute=number("mean_absolute", 0.0),
        max_relative=number("max_relative", 0.0),
        rows=whole("rows"),
        least_cosine=number("least_cosine", 1.0),
        mean_cosine=number("mean_cosine", 1.0),
        top1_rows=whole("top1_rows"),
        top1_agreed=whole("top1_agreed"),
    )
