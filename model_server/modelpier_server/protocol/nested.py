"""Tensors as nested lists whose nesting says the shape, for the requests that carry no shape of their own.

Used by `plain` and `predict`. FP16 and BF16 are JSON numbers here, because these forms have no binary twin; a BYTES
element is text, or `{"b64": "..."}` as KServe and TensorFlow Serving write it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol import elements
from modelpier_server.protocol.reading import decoded
from modelpier_server.protocol.shape import check_output, check_shape
from modelpier_server.protocol.signature import Signature, Slot

Inputs = dict[str, npt.NDArray[Any]]


class Base64(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    b64: str


_decode_map = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def inputs_of(raw: msgspec.Raw, signature: Signature, where: str) -> Inputs:
    """All inputs: an object of name to lists, or the lists themselves where the model has one input.

    Raises InvalidRequest naming the field below `where`.
    """
    given = _by_name(raw, signature, where)
    check_names(given, signature, where)
    return {name: array_of(raw, signature.inputs[name], signature, f"{where} '{name}'") for name, raw in given.items()}


def check_names(given: Mapping[str, object], signature: Signature, where: str) -> None:
    """Raises InvalidRequest where an input is unknown or missing."""
    for name in given:
        if name not in signature.inputs:
            names = ", ".join(f"'{known}'" for known in signature.inputs)
            raise InvalidRequest(f"{where}: the model has no input '{name[:100]}'; it has {names}")
    if missing := [f"'{name}'" for name in signature.inputs if name not in given]:
        raise InvalidRequest(f"{where}: {', '.join(missing)} missing")


def first_byte(raw: msgspec.Raw) -> bytes:
    """Of the value itself: msgspec keeps no blanks around a Raw."""
    return bytes(memoryview(raw)[:1])


def _by_name(raw: msgspec.Raw, signature: Signature, where: str) -> dict[str, msgspec.Raw]:
    if first_byte(raw) == b"{":
        return decoded(_decode_map, raw, where)
    if len(signature.inputs) != 1:
        names = ", ".join(f"'{name}'" for name in signature.inputs)
        raise InvalidRequest(f"{where}: the model has the inputs {names}; give an object of input name to lists")
    return {next(iter(signature.inputs)): raw}


def array_of(raw: msgspec.Raw, slot: Slot, signature: Signature, where: str) -> npt.NDArray[Any]:
    """One input. Raises InvalidRequest naming `where`."""
    rank = len(slot.spec.shape)
    if elements.depth_of(raw) != rank:
        takes = list(slot.spec.shape)
        raise InvalidRequest(f"{where}: must be lists nested {rank} deep for the shape {takes}, where -1 is any size")
    text = slot.datatype.name == "BYTES"
    values = elements.decode(raw, str | Base64 if text else slot.datatype.json or float, rank, where)
    shape = _shape(values, rank)
    check_shape(shape, slot, signature, where)
    flat = elements.flatten(values, shape, where) if rank else [values]
    if text:
        flat = [_text(value, where) for value in flat]
    return elements.pack(flat, slot.datatype, shape, where)


def _shape(values: Any, rank: int) -> list[int]:
    """Lengths along the first elements; 0 for what lies below an empty list."""
    shape: list[int] = []
    for _ in range(rank):
        shape.append(len(values) if values else 0)
        values = values[0] if values else None
    return shape


def _text(value: str | Base64, where: str) -> str:
    if isinstance(value, str):
        return value
    try:
        return base64.b64decode(value.b64, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        what = "not UTF-8, as strings of ONNX are" if isinstance(error, UnicodeDecodeError) else "not base64"
        raise InvalidRequest(f"{where}: b64 is {what}: {error}") from error


def lists(slot: Slot, array: npt.NDArray[Any]) -> Any:
    """An output as `infer_response.dump` writes it: nested as its shape says. Raises InvalidRequest."""
    check_output(slot, array.size, json=True)
    if slot.datatype.json is None:
        array = array.astype(np.float32)
    return array.tolist() if array.dtype.hasobject or array.ndim == 0 else np.ascontiguousarray(array)


def by_name(signature: Signature, arrays: Sequence[npt.NDArray[Any]]) -> dict[str, Any]:
    """All outputs as `lists`."""
    return {slot.name: lists(slot, array) for slot, array in zip(signature.outputs.values(), arrays, strict=True)}
