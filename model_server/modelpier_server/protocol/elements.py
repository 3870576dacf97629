"""Elements of a tensor in JSON: numbers, booleans or strings, flat or nested, to a numpy array.

Values are decoded by their declared type and packed by `struct`, because numpy is too kind: it would read "1.5" as a
number, cut 1.7 to 1 and turn 1e300 into infinity without a word.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol.datatypes import Datatype

_OPENING = re.compile(rb"[\s\[]*")
_LONGEST_ELEMENT = 64
"""Bytes of JSON that one element takes at most, with its digits, comma and indentation."""
_FREE = 1 << 20
"""Data shorter than this is decoded without a guess at its number of elements."""


def depth_of(raw: msgspec.Raw) -> int:
    """How many brackets open before the first element."""
    opening = _OPENING.match(raw)
    return opening.group().count(b"[") if opening else 0


def array_of(raw: msgspec.Raw, datatype: Datatype, shape: Sequence[int], elements: int, where: str) -> npt.NDArray[Any]:
    """The array of `shape` that `raw` holds, flat (row-major) or nested as `shape` says.

    Raises InvalidRequest naming `where`; never allocates more than a small multiple of what the shape promises.
    """
    if datatype.json is None:
        raise InvalidRequest(
            f"{where}: {datatype.name} has no JSON form; send it with the binary tensor extension "
            "(parameters.binary_data_size and the header Inference-Header-Content-Length)"
        )
    size = memoryview(raw).nbytes
    if size > _FREE + elements * _LONGEST_ELEMENT and datatype.json is not str:
        raise InvalidRequest(f"{where}: {size} bytes of JSON are too many for the {elements} elements of the shape")
    depth = depth_of(raw)
    values = decode(raw, datatype.json, depth, where)
    if depth == 1:
        if len(values) != elements:
            raise InvalidRequest(f"{where}: {len(values)} elements, but the shape {list(shape)} has {elements}")
    elif depth == len(shape):
        values = flatten(values, shape, where) if depth else [values]
    else:
        raise InvalidRequest(f"{where}: must be flat or nested as its shape {list(shape)}; it is nested {depth} deep")
    return pack(values, datatype, shape, where)


def decode(raw: msgspec.Raw, element: Any, depth: int, where: str) -> Any:
    """Lists of the type `element` nested `depth` deep; a bare element for depth 0."""
    try:
        return _decoder(element, depth).decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"{where}: {error}") from error


def flatten(values: Any, shape: Sequence[int], where: str) -> Any:
    """Nested lists to one list; raises InvalidRequest where a list has not the length that `shape` says."""
    for axis, size in enumerate(shape):
        if axis == 0:
            wrong = len(values) != size
        else:
            wrong = any(len(part) != size for part in values)
            values = list(chain.from_iterable(values))
        if wrong:
            raise InvalidRequest(f"{where}: a list at depth {axis + 1} has not {size} elements as the shape says")
    return values


def pack(values: Sequence[Any], datatype: Datatype, shape: Sequence[int], where: str) -> npt.NDArray[Any]:
    """Checked elements to an array; raises InvalidRequest where one is out of the datatype's range."""
    try:
        if datatype.struct:
            flat = np.frombuffer(_struct(len(values), datatype.struct).pack(*values), datatype.numpy)
        else:
            flat = np.array(values, datatype.numpy)
            if datatype.json is None and not np.isfinite(flat).all():
                raise InvalidRequest(f"{where}: an element is out of {datatype.name}'s range")
        return flat.reshape(shape)
    except (struct.error, OverflowError, ValueError) as error:
        raise InvalidRequest(f"{where}: an element does not fit {datatype.name}: {error}") from error


@lru_cache(maxsize=256)
def _struct(count: int, element: str) -> struct.Struct:
    return struct.Struct(f"<{count}{element}")


@lru_cache(maxsize=256)
def _decoder(element: Any, depth: int) -> msgspec.json.Decoder[Any]:
    if depth > 64:
        raise RecursionError(f"nested {depth} deep")
    nested: Any = element
    for _ in range(depth):
        nested = list[nested]
    return msgspec.json.Decoder(nested)
