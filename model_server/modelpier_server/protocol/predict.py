"""KServe v1 `:predict`, as TensorFlow Serving brought it in; SageMaker's and Vertex AI's bodies have the same form.

`instances` are rows: a value per row where the model has one input, otherwise an object of input name to value.
`inputs` are columns: the whole tensor, or an object of input name to tensor. Answers are `{"predictions": ...}` in the
form of the request. Sources: KServe's `data_plane/v1_protocol.md`; TensorFlow Serving's `api_rest.md`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy.typing as npt

from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol import nested
from modelpier_server.protocol.http import Body
from modelpier_server.protocol.infer_response import dump
from modelpier_server.protocol.reading import decoded
from modelpier_server.protocol.signature import Signature, Slot


class Message(msgspec.Struct, gc=False):
    """Other fields (`signature_name`, `parameters`) are allowed and ignored."""

    instances: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class PredictRequest(msgspec.Struct, gc=False, tag=True):
    inputs: nested.Inputs
    rows: int | None
    """How many `instances` there were; None: the request was in columns."""


_OBJECTS = re.compile(rb"\[\s*\{")
_decode = msgspec.json.Decoder(Message).decode
_decode_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_row = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def message_of(body: Body) -> Message:
    """Raises InvalidRequest."""
    return decoded(_decode, body, "request")


def is_infer(message: Message) -> bool:
    """Whether the body is one of the Open Inference Protocol, whose `inputs` are objects that describe tensors."""
    raw = message.inputs
    if message.instances is not msgspec.UNSET or raw is msgspec.UNSET or not _OBJECTS.match(raw):
        return False
    return "datatype" in _object(_list(raw, "inputs")[0], "inputs[0]")


def decode(body: Body, signature: Signature) -> PredictRequest:
    """Raises InvalidRequest naming the field."""
    return read(message_of(body), signature)


def read(message: Message, signature: Signature) -> PredictRequest:
    """As `decode`."""
    if message.instances is not msgspec.UNSET and message.inputs is not msgspec.UNSET:
        raise InvalidRequest("request: has both instances and inputs; give one")
    if message.instances is not msgspec.UNSET:
        return _rows(message.instances, signature)
    if message.inputs is not msgspec.UNSET:
        return PredictRequest(nested.inputs_of(message.inputs, signature, "inputs"), None)
    raise InvalidRequest("instances: missing; give rows as instances, or columns as inputs")


def _rows(raw: msgspec.Raw, signature: Signature) -> PredictRequest:
    rows = _list(raw, "instances")
    for slot in signature.inputs.values():
        if not slot.spec.shape:
            raise InvalidRequest(f"instances: input '{slot.name}' has no rows; give inputs instead")
    if rows and _is_named(rows[0], signature):
        columns = _columns(rows, signature)
    elif len(signature.inputs) == 1:
        columns = {next(iter(signature.inputs)): raw}
    else:
        names = ", ".join(f"'{name}'" for name in signature.inputs)
        raise InvalidRequest(f"instances: must be objects of input name to value, with {names}, at least one")
    inputs = {
        name: nested.array_of(column, signature.inputs[name], signature, f"instances '{name}'")
        for name, column in columns.items()
    }
    return PredictRequest(inputs, len(rows))


def _is_named(row: msgspec.Raw, signature: Signature) -> bool:
    """An object is a row by input names, unless it is one element in base64."""
    if nested.first_byte(row) != b"{":
        return False
    return "b64" in signature.inputs or _object(row, "instances[0]").keys() != {"b64"}


def _columns(rows: Sequence[msgspec.Raw], signature: Signature) -> dict[str, msgspec.Raw]:
    """Rows by name to whole inputs, put together as JSON again: one decoder checks both forms."""
    values: dict[str, list[bytes]] = {name: [] for name in signature.inputs}
    for index, row in enumerate(rows):
        where = f"instances[{index}]"
        fields = _object(row, where)
        nested.check_names(fields, signature, where)
        for name, value in fields.items():
            values[name].append(bytes(value))
    return {name: msgspec.Raw(b"[%b]" % b",".join(column)) for name, column in values.items()}


def _list(raw: msgspec.Raw, where: str) -> list[msgspec.Raw]:
    return decoded(_decode_rows, raw, where)


def _object(raw: msgspec.Raw, where: str) -> dict[str, msgspec.Raw]:
    return decoded(_decode_row, raw, where)


def encode(signature: Signature, arrays: Sequence[npt.NDArray[Any]], rows: int | None) -> bytes:
    """Raises InvalidRequest where an output holds NaN or infinity, or has not a row per instance."""
    slots = tuple(signature.outputs.values())
    if rows is not None:
        for slot, array in zip(slots, arrays, strict=True):
            _check_rows(slot, array, rows)
    outputs = nested.by_name(signature, arrays)
    predictions: Any = outputs
    if len(outputs) == 1:
        (predictions,) = outputs.values()
    elif rows is not None:
        predictions = [{name: lists[row] for name, lists in outputs.items()} for row in range(rows)]
    return dump({"predictions": predictions}, zip(slots, arrays, strict=True))


def _check_rows(slot: Slot, array: npt.NDArray[Any], rows: int) -> None:
    if not array.ndim or array.shape[0] != rows:
        raise InvalidRequest(
            f"predictions: output '{slot.name}' is {list(array.shape)} for {rows} instances, not one row for each; "
            "give inputs in place of instances"
        )
