"""Tensors of the binary data extension: raw little-endian elements behind the JSON part of a body.

Source: Triton's `extension_binary_data.md`. BYTES is, per element, its length as an unsigned 32-bit number and then
its bytes; ONNX strings are UTF-8, so anything else is refused here instead of being changed on the way.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol.signature import Slot

_LENGTH = struct.Struct("<I")


def array_of(view: memoryview, slot: Slot, shape: Sequence[int], elements: int, where: str) -> npt.NDArray[Any]:
    """The tensor in `view`, without a copy where it lies aligned. Raises InvalidRequest naming `where`."""
    datatype = slot.datatype
    if datatype.name == "BYTES":
        return strings(view, shape, where)
    expected = elements * datatype.numpy.itemsize
    if view.nbytes != expected:
        raise InvalidRequest(f"{where}: {view.nbytes} bytes, but {datatype.name} {list(shape)} has {expected}")
    if datatype.name == "BOOL" and view.nbytes and np.frombuffer(view, np.uint8).max() > 1:
        raise InvalidRequest(f"{where}: a BOOL is one byte, 0 or 1")
    array = np.frombuffer(view, datatype.numpy)
    return (array if array.flags.aligned else array.copy()).reshape(shape)


def strings(view: memoryview, shape: Sequence[int], where: str) -> npt.NDArray[np.object_]:
    """BYTES elements. Raises InvalidRequest naming `where`."""
    elements = prod(shape)
    if elements * _LENGTH.size > view.nbytes:
        raise InvalidRequest(
            f"{where}: {view.nbytes} bytes cannot hold {elements} BYTES elements of 4 or more bytes each"
        )
    values: list[str] = []
    at, end, data = 0, view.nbytes, view.tobytes()
    while at < end:
        start = at + _LENGTH.size
        if len(values) == elements or start > end:
            raise InvalidRequest(f"{where}: the data does not end after the {elements} BYTES elements of the shape")
        at = start + int.from_bytes(data[at:start], "little")
        if at > end:
            raise InvalidRequest(
                f"{where} element {len(values)}: {at - start} bytes are declared, {end - start} are left"
            )
        try:
            values.append(data[start:at].decode())
        except UnicodeDecodeError as error:
            raise _no_text(f"{where} element {len(values)}") from error
    if len(values) != elements:
        raise InvalidRequest(f"{where}: {len(values)} BYTES elements, but the shape has {elements}")
    array = np.empty(elements, np.object_)
    array[:] = values
    return array.reshape(shape)


def text_of(data: bytes | memoryview, where: str) -> str:
    """One element of BYTES. Raises InvalidRequest naming `where` for what is no UTF-8."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise _no_text(where) from error


def _no_text(where: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: not UTF-8, as strings of ONNX are; base64 carries other bytes")


def raw_input(view: memoryview, slot: Slot) -> npt.NDArray[Any]:
    """The only input of a raw binary request: the shape follows from the model's and the number of bytes."""
    where = f"raw body for input '{slot.name}'"
    shape = list(slot.spec.shape)
    if slot.datatype.name == "BYTES":
        if any(size not in {-1, 1} for size in shape):
            raise InvalidRequest(f"{where}: BYTES can be raw only where the model takes one element, not {shape}")
        array = np.empty(1, np.object_)
        array[0] = text_of(view, where)
        return array.reshape([1] * len(shape))
    if shape.count(-1) == 2 and shape[0] == -1:
        shape[0] = 1
    if shape.count(-1) > 1:
        raise InvalidRequest(f"{where}: {list(slot.spec.shape)} has more variable sizes than bytes alone can tell")
    if -1 in shape:
        row = prod(size for size in shape if size != -1) * slot.datatype.numpy.itemsize
        if not row or not view.nbytes or view.nbytes % row:
            raise InvalidRequest(f"{where}: {view.nbytes} bytes are no multiple (1 or more) of the {row} of one row")
        shape[shape.index(-1)] = view.nbytes // row
    return array_of(view, slot, shape, prod(shape), where)


def bytes_of(array: npt.NDArray[Any]) -> bytes | memoryview:
    """What goes on the wire for an output; a view of the array's own memory where that is possible."""
    if array.dtype.hasobject:
        parts: list[bytes] = []
        for value in array.ravel().tolist():
            encoded = value.encode()
            parts += (_LENGTH.pack(len(encoded)), encoded)
        return b"".join(parts)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
