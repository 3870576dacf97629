"""The datatypes of the Open Inference Protocol, as numpy holds them and as JSON writes them.

Used by the codecs here and by `runtime`, which maps ONNX's own names to these.
Source: Open Inference Protocol, `inference_rest.md` "Tensor Data Types"; BF16 is Triton's addition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np


@dataclass(frozen=True, slots=True)
class Datatype:
    """One tensor element type."""

    name: str
    numpy: np.dtype[Any]
    """As it lies on the wire, too: little-endian, BOOL one byte. BYTES has `object`: a str per element."""
    json: type | None
    """What an element is in JSON; None: it has no JSON form and needs the binary extension."""
    struct: str
    """Format character of `struct` that checks the range of an element and packs it; empty where there is none."""


def _datatype(name: str, numpy: Any, json: type | None, struct: str) -> Datatype:
    return Datatype(name, np.dtype(numpy), json, struct)


DATATYPES: dict[str, Datatype] = {
    datatype.name: datatype
    for datatype in (
        _datatype("BOOL", np.bool_, bool, "?"),
        _datatype("UINT8", np.uint8, int, "B"),
        _datatype("UINT16", np.uint16, int, "H"),
        _datatype("UINT32", np.uint32, int, "I"),
        _datatype("UINT64", np.uint64, int, "Q"),
        _datatype("INT8", np.int8, int, "b"),
        _datatype("INT16", np.int16, int, "h"),
        _datatype("INT32", np.int32, int, "i"),
        _datatype("INT64", np.int64, int, "q"),
        _datatype("FP16", np.float16, None, "e"),
        _datatype("BF16", ml_dtypes.bfloat16, None, ""),
        _datatype("FP32", np.float32, float, "f"),
        _datatype("FP64", np.float64, float, "d"),
        _datatype("BYTES", np.object_, str, ""),
    )
}

FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})
"""Datatypes that know NaN and infinity."""
