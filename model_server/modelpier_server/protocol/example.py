"""A valid request of a model, made from its signature: what the page and the OpenAPI document show."""

from __future__ import annotations

from math import prod
from typing import Any

from modelpier_server.protocol.datatypes import Datatype
from modelpier_server.protocol.signature import Signature, Slot

ELEMENTS_LIMIT = 4096
"""Of all inputs: a larger request is nothing to read or to type."""


def infer_request(signature: Signature, size: int) -> dict[str, Any] | None:
    """One row; `size` for other variable sizes. None where it would be too long, or has no JSON form."""
    if any(slot.datatype.json is None for slot in (*signature.inputs.values(), *signature.outputs.values())):
        return None
    shapes = _shapes(signature, size)
    if shapes is None:
        return None
    return {
        "inputs": [
            {
                "name": slot.name,
                "shape": shapes[slot.name],
                "datatype": slot.datatype.name,
                "data": [_element(slot.datatype)] * prod(shapes[slot.name]),
            }
            for slot in signature.inputs.values()
        ]
    }


def input_data(signature: Signature, size: int) -> Any:
    """The same for the plain route, whose nesting is the shape; it has a form for every datatype."""
    shapes = _shapes(signature, size)
    if shapes is None:
        return None
    lists = {slot.name: _nested(slot, shapes[slot.name]) for slot in signature.inputs.values()}
    return next(iter(lists.values())) if len(lists) == 1 else lists


def _shapes(signature: Signature, size: int) -> dict[str, list[int]] | None:
    shapes = {
        slot.name: [n if n >= 0 else (1 if axis == 0 else size) for axis, n in enumerate(slot.spec.shape)]
        for slot in signature.inputs.values()
    }
    return shapes if sum(prod(shape) for shape in shapes.values()) <= ELEMENTS_LIMIT else None


def _nested(slot: Slot, shape: list[int]) -> Any:
    value: Any = _element(slot.datatype)
    for size in reversed(shape):
        value = [value] * size
    return value


def _element(datatype: Datatype) -> Any:
    """Whole numbers are indices more often than not: 0 is always one."""
    kind = datatype.json or float
    return {bool: False, int: 0, float: 0.5, str: "text"}[kind]
