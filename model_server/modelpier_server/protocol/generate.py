"""Triton's generate extension: one flat JSON object in, one out, for models of text.

Fields are inputs by name, at the top or below `parameters`; a value is one element or a flat list, and the model says
the shape. `text_input` also stands for the only BYTES input of a model that calls it otherwise. Source: Triton's
`extension_generate.md`; the rule for shapes is that of its HTTP front end.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol import elements, nested
from modelpier_server.protocol.http import Body
from modelpier_server.protocol.infer_response import dump
from modelpier_server.protocol.reading import decoded
from modelpier_server.protocol.shape import check_output, check_shape
from modelpier_server.protocol.signature import Signature, Slot

TEXT_INPUT = "text_input"
STREAM_TYPE = "text/event-stream; charset=utf-8"


class GenerateRequest(msgspec.Struct, gc=False, tag=True):
    id: str | None
    inputs: nested.Inputs


_Fields = dict[str, msgspec.Raw]
_decode = msgspec.json.Decoder(_Fields).decode
_decode_id = msgspec.json.Decoder(str | None).decode
_decode_parameter = msgspec.json.Decoder(str | bool | int | float).decode


def decode(body: Body, signature: Signature) -> GenerateRequest:
    """Raises InvalidRequest naming the field."""
    fields = _object(body, "request")
    nested_fields = {}
    if "parameters" not in signature.inputs and "parameters" in fields:
        nested_fields = _object(fields.pop("parameters"), "parameters")
    request_id = None
    if "id" not in signature.inputs and "id" in fields:
        request_id = decoded(_decode_id, fields.pop("id"), "id")
    if twice := fields.keys() & nested_fields.keys():
        raise InvalidRequest(f"parameters: '{min(twice)[:100]}' is given beside them, too")
    given = _inputs({**fields, **nested_fields}, signature)
    if missing := [f"'{name}'" for name in signature.inputs if name not in given]:
        raise InvalidRequest(f"request: {', '.join(missing)} missing")
    return GenerateRequest(
        request_id, {name: _array(raw, signature.inputs[name], signature) for name, raw in given.items()}
    )


def _object(raw: Body | msgspec.Raw, where: str) -> _Fields:
    return decoded(_decode, raw, where)


def _inputs(fields: _Fields, signature: Signature) -> _Fields:
    """What is no input is a parameter, which models of ONNX do not have: checked and dropped."""
    alias = _text_input(signature)
    found: _Fields = {}
    for name, raw in fields.items():
        target = alias if name == TEXT_INPUT and alias is not None else name
        if target not in signature.inputs:
            decoded(_decode_parameter, raw, f"parameter '{name[:100]}'")
        elif target in found:
            raise InvalidRequest(f"request: '{target}' is given twice")
        else:
            found[target] = raw
    return found


def _text_input(signature: Signature) -> str | None:
    """The input that `text_input` stands for where none has that name."""
    if TEXT_INPUT in signature.inputs:
        return TEXT_INPUT
    texts = [slot.name for slot in signature.inputs.values() if slot.datatype.name == "BYTES"]
    return texts[0] if len(texts) == 1 else None


def _array(raw: msgspec.Raw, slot: Slot, signature: Signature) -> npt.NDArray[Any]:
    depth = elements.depth_of(raw)
    if depth > 1:
        raise InvalidRequest(f"'{slot.name}': must be one element or a flat list; it is nested {depth} deep")
    values = elements.decode(raw, slot.datatype.json or float, depth, f"'{slot.name}'")
    flat = values if depth else [values]
    shape = _shape(len(flat), slot)
    check_shape(shape, slot, signature, f"'{slot.name}'")
    return elements.pack(flat, slot.datatype, shape, f"'{slot.name}'")


def _shape(count: int, slot: Slot) -> list[int]:
    """The innermost variable size takes what the fixed ones leave; other variable sizes are 1."""
    fixed = prod(size for size in slot.spec.shape if size >= 0)
    variable = slot.spec.shape.count(-1)
    if not fixed or count % fixed or (not variable and count != fixed):
        raise InvalidRequest(f"'{slot.name}': {count} elements do not fit the shape {list(slot.spec.shape)}")
    shape, left = list(slot.spec.shape), count // fixed
    for axis in reversed(range(len(shape))):
        if shape[axis] == -1:
            shape[axis], left = left, 1
    return shape


def encode(
    name: str, version: str, request: GenerateRequest, signature: Signature, arrays: Sequence[npt.NDArray[Any]]
) -> bytes:
    """Raises InvalidRequest where an output holds NaN or infinity."""
    answer: dict[str, Any] = {"model_name": name, "model_version": version}
    if request.id is not None:
        answer["id"] = request.id
    slots = tuple(signature.outputs.values())
    answer |= {slot.name: _value(slot, array) for slot, array in zip(slots, arrays, strict=True)}
    return dump(answer, zip(slots, arrays, strict=True))


def _value(slot: Slot, array: npt.NDArray[Any]) -> Any:
    check_output(slot, array.size, json=True)
    flat = array.ravel()
    if slot.datatype.json is None:
        flat = flat.astype(np.float32)
    values = flat.tolist() if flat.dtype.hasobject else flat
    return values[0] if array.size == 1 else values


def event(answer: bytes) -> bytes:
    """One server-sent event; JSON holds no line breaks."""
    return b"data: %b\n\n" % answer
