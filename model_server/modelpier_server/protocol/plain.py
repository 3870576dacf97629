"""The plainest request that can work: `POST /model {"model_name", "input_data"}` -> `{"output_data"}`.

`input_data` maps each input's name to nested lists, or is the nested lists themselves where the model has one input;
the shape is what the nesting says. `output_data` maps names to nested lists, or is the nested lists themselves where
the model has one output. FP16 and BF16 are read from and written as JSON numbers here, because this route has no
binary form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol import elements
from modelpier_server.protocol.http import Body
from modelpier_server.protocol.infer_response import dump
from modelpier_server.protocol.shape import check_shape
from modelpier_server.protocol.signature import Signature, Slot


class PlainRequest(msgspec.Struct, gc=False):
    model_name: str
    input_data: msgspec.Raw
    model_version: str | None = None


_decode = msgspec.json.Decoder(PlainRequest).decode
_decode_map = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decode(body: Body) -> PlainRequest:
    """Raises InvalidRequest naming the field."""
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"request: {error}") from error
    except RecursionError as error:
        raise InvalidRequest("request: nested too deeply") from error


def inputs_of(request: PlainRequest, signature: Signature) -> dict[str, npt.NDArray[Any]]:
    """The model's inputs. Raises InvalidRequest naming the field."""
    given = _by_name(request.input_data, signature)
    for name in given:
        if name not in signature.inputs:
            names = ", ".join(f"'{known}'" for known in signature.inputs)
            raise InvalidRequest(f"input_data: the model has no input '{name}'; it has {names}")
    if missing := [name for name in signature.inputs if name not in given]:
        raise InvalidRequest(f"input_data: {', '.join(missing)} missing")
    return {name: _array(raw, signature.inputs[name], signature) for name, raw in given.items()}


def _by_name(raw: msgspec.Raw, signature: Signature) -> dict[str, msgspec.Raw]:
    if bytes(memoryview(raw)[:1]) == b"{":
        try:
            return _decode_map(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"input_data: {error}") from error
    if len(signature.inputs) != 1:
        names = ", ".join(f"'{name}'" for name in signature.inputs)
        raise InvalidRequest(f"input_data: the model has the inputs {names}; give an object of input name to lists")
    return {next(iter(signature.inputs)): raw}


def _array(raw: msgspec.Raw, slot: Slot, signature: Signature) -> npt.NDArray[Any]:
    where = f"input_data '{slot.name}'"
    rank = len(slot.spec.shape)
    if elements.depth_of(raw) != rank:
        takes = list(slot.spec.shape)
        raise InvalidRequest(f"{where}: must be lists nested {rank} deep for the shape {takes}, where -1 is any size")
    values = elements.decode(raw, slot.datatype.json or float, rank, where)
    shape = _shape(values, rank)
    check_shape(shape, slot, signature, where)
    flat = elements.flatten(values, shape, where) if rank else [values]
    return elements.pack(flat, slot.datatype, shape, where)


def _shape(values: Any, rank: int) -> list[int]:
    """Lengths along the first elements; 0 for what lies below an empty list."""
    shape: list[int] = []
    for _ in range(rank):
        shape.append(len(values) if values else 0)
        values = values[0] if values else None
    return shape


def encode(signature: Signature, arrays: Sequence[npt.NDArray[Any]]) -> bytes:
    """Raises InvalidRequest where an output holds NaN or infinity; the binary form of `/v2/models/.../infer` carries
    them.
    """
    lists = {slot.name: _lists(slot, array) for slot, array in zip(signature.outputs.values(), arrays, strict=True)}
    data = next(iter(lists.values())) if len(lists) == 1 else lists
    return dump({"output_data": data}, zip(signature.outputs.values(), arrays, strict=True))


def _lists(slot: Slot, array: npt.NDArray[Any]) -> Any:
    if slot.datatype.json is None:
        array = array.astype(np.float32)
    return array.tolist() if array.dtype.hasobject or array.ndim == 0 else np.ascontiguousarray(array)
