"""JSON Schema of requests and answers of one model: what the OpenAPI document says of its tensors.

Source: OpenAPI 3.1, whose schemas are JSON Schema 2020-12. A schema cannot say that the number of elements goes with a
shape beside it; where nesting is the shape (`plain`, `predict`) it says all but that variable sizes agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from modelpier_server.protocol.datatypes import DATATYPES, Datatype
from modelpier_server.protocol.signature import Signature, Slot

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
MAYBE_FLAG: Schema = {"type": ["boolean", "null"]}
BASE64: Schema = {
    "type": "object",
    "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
    "required": ["b64"],
    "additionalProperties": False,
}


def shape_of(properties: Schema, required: Sequence[str] = ()) -> Schema:
    """An object; further fields are allowed."""
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def maybe(schema: Schema) -> Schema:
    """Null is taken for absence."""
    return schema | {"type": [schema["type"], "null"]}


def array_of(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


# ------------------------------------------------------------------------------------------------ tensors
def element(datatype: Datatype) -> Schema:
    """One element as these routes take it in JSON."""
    if datatype.json is bool:
        return {"type": "boolean"}
    if datatype.json is int:
        about = np.iinfo(datatype.numpy)
        return {"type": "integer", "minimum": int(about.min), "maximum": int(about.max)}
    return dict(TEXT) if datatype.json is str else _real(datatype)


def _real(datatype: Datatype) -> Schema:
    """What lies within half a step above the largest number is rounded down to it."""
    if datatype.name not in _BEYOND:
        return {"type": "number"}
    return {"type": "number", "exclusiveMinimum": -_BEYOND[datatype.name], "exclusiveMaximum": _BEYOND[datatype.name]}


_BEYOND = {"FP16": 65520.0, "BF16": (2 - 2**-8) * 2.0**127, "FP32": (2 - 2**-24) * 2.0**127}


def nested(slot: Slot, signature: Signature, *, axes: int = 0) -> Schema:
    """Lists nested as the shape says, without its first `axes`."""
    schema = element(slot.datatype)
    if slot.datatype.name == "BYTES":
        schema = {"oneOf": [schema, BASE64]}
    for axis in reversed(range(axes, len(slot.spec.shape))):
        size = slot.spec.shape[axis]
        limits = {"minItems": size, "maxItems": size} if size >= 0 else _least(axis, signature)
        schema = array_of(schema, **limits)
    return schema


def _least(axis: int, signature: Signature) -> dict[str, int]:
    return {"minItems": 1} if axis == 0 and not signature.empty_rows else {}


def _data(slot: Slot) -> Schema:
    """Flat or nested."""
    schema = element(slot.datatype)
    anyhow = [array_of(schema)]
    for _ in slot.spec.shape[1:]:
        schema = array_of(schema)
        anyhow = [anyhow[0], array_of(schema)]
    return anyhow[0] if len(anyhow) == 1 else {"anyOf": anyhow}


def _sizes(slot: Slot, signature: Signature) -> Schema:
    sizes = [{"const": size} if size >= 0 else _variable(axis, signature) for axis, size in enumerate(slot.spec.shape)]
    rank = len(sizes)
    return {"type": "array", "prefixItems": sizes, "minItems": rank, "maxItems": rank} if rank else {"const": []}


def _variable(axis: int, signature: Signature) -> Schema:
    return {"type": "integer", "minimum": 1 if _least(axis, signature) else 0}


# ------------------------------------------------------------------------------------------------ infer
def infer_request(signature: Signature) -> Schema:
    """The JSON part; a tensor has `data`, or the size of its bytes behind that part."""
    inputs = [_infer_input(slot, signature) for slot in signature.inputs.values()]
    names = {"enum": list(signature.outputs)}
    choice = shape_of({"name": names, "parameters": maybe(_OUTPUT_PARAMETERS)}, ["name"])
    return shape_of(
        {
            "id": MAYBE_TEXT,
            "inputs": {
                "type": "array",
                "items": {"oneOf": inputs} if len(inputs) > 1 else inputs[0],
                "minItems": len(inputs),
                "maxItems": len(inputs),
            },
            "outputs": maybe(array_of(choice)),
            "parameters": maybe(shape_of({"binary_data_output": MAYBE_FLAG})),
        },
        ["inputs"],
    )


_OUTPUT_PARAMETERS = shape_of(
    {"binary_data": MAYBE_FLAG, "classification": {"type": ["integer", "null"], "minimum": 0}}
)


def _infer_input(slot: Slot, signature: Signature) -> Schema:
    properties = {
        "name": {"const": slot.name},
        "shape": _sizes(slot, signature),
        "datatype": {"const": slot.datatype.name},
    }
    fields = ["name", "shape", "datatype"]
    size = shape_of({"binary_data_size": {"type": "integer", "minimum": 0}}, ["binary_data_size"])
    binary = shape_of({**properties, "parameters": size, "data": False}, [*fields, "parameters"])
    if slot.datatype.json is None:
        return binary
    size = maybe(shape_of({"binary_data_size": {"type": "null"}}))
    plain = shape_of({**properties, "data": _data(slot), "parameters": size}, [*fields, "data"])
    return {"oneOf": [plain, binary]}


def infer_response(signature: Signature) -> Schema:
    output = shape_of(
        {
            "name": {"enum": list(signature.outputs)},
            "shape": array_of({"type": "integer", "minimum": 0}),
            "datatype": {"enum": list(DATATYPES)},
            "data": {"type": "array"},
            "parameters": shape_of({"binary_data_size": {"type": "integer"}}),
        },
        ["name", "shape", "datatype"],
    )
    return shape_of(
        {"model_name": TEXT, "model_version": TEXT, "id": TEXT, "outputs": array_of(output, minItems=1)},
        ["model_name", "model_version", "outputs"],
    )


# ------------------------------------------------------------------------------------------------ nested forms
def plain_request(signature: Signature) -> Schema:
    """`input_data` alone: the caller puts the model's name beside it."""
    return _columns(signature)


def plain_response(signature: Signature) -> Schema:
    return shape_of({"output_data": _outputs(signature)}, ["output_data"])


def predict_request(signature: Signature) -> Schema:
    columns = shape_of({"inputs": _columns(signature), "instances": False}, ["inputs"])
    if any(not slot.spec.shape for slot in signature.inputs.values()):
        return columns
    rows = {slot.name: nested(slot, signature, axes=1) for slot in signature.inputs.values()}
    row = shape_of(rows, list(rows)) | {"additionalProperties": False}
    firsts = [slot.spec.shape[0] for slot in signature.inputs.values()]
    fixed = [size for size in firsts if size >= 0]
    limits = {"minItems": fixed[0], "maxItems": fixed[0]} if fixed else _least(0, signature)
    instances: list[Schema] = [array_of(row, **(limits if fixed else {"minItems": 1}))]
    if len(rows) == 1:
        instances.append(array_of(next(iter(rows.values())), **limits))
    by_rows = shape_of({"instances": {"anyOf": instances}, "inputs": False}, ["instances"])
    return {"oneOf": [by_rows, columns]}


def predict_response(signature: Signature) -> Schema:
    return shape_of({"predictions": {"anyOf": [_outputs(signature), {"type": "array"}]}}, ["predictions"])


def _columns(signature: Signature) -> Schema:
    lists = {slot.name: nested(slot, signature) for slot in signature.inputs.values()}
    named = shape_of(lists, list(lists)) | {"additionalProperties": False}
    return {"anyOf": [next(iter(lists.values())), named]} if len(lists) == 1 else named


def _outputs(signature: Signature) -> Schema:
    lists = {slot.name: _answer(slot) for slot in signature.outputs.values()}
    return next(iter(lists.values())) if len(lists) == 1 else shape_of(lists, list(lists))


def _answer(slot: Slot) -> Schema:
    schema = element(slot.datatype)
    for _ in slot.spec.shape:
        schema = array_of(schema)
    return schema


# ------------------------------------------------------------------------------------------------ generate
def generate_request(signature: Signature) -> Schema:
    """Nothing is required, because inputs may stand below `parameters`, too."""
    values: Schema = {slot.name: _flat(slot) for slot in signature.inputs.values()}
    return shape_of({"id": MAYBE_TEXT, "parameters": {"type": "object"}, **values})


def _flat(slot: Slot) -> Schema:
    """One element, or a list of as many as fill the shape."""
    fixed = prod(size for size in slot.spec.shape if size >= 0)
    limits = {"minItems": fixed, **({} if -1 in slot.spec.shape else {"maxItems": fixed})}
    several = array_of(element(slot.datatype), **limits)
    return {"anyOf": [element(slot.datatype), several]} if fixed == 1 else several


def generate_response(signature: Signature) -> Schema:
    outputs: Schema = {slot.name: {} for slot in signature.outputs.values()}
    return shape_of({"model_name": TEXT, "model_version": TEXT, "id": TEXT, **outputs}, list(outputs))
