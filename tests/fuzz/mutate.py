"""Changes inputs so that they stay nearly right: bytes changed at random hardly ever get past a parser of JSON.

Used by `worker` for half of the inputs; the other half is changed byte by byte by libFuzzer, which also knows which of
them have reached something new.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

Mutator = Callable[[bytes, random.Random], bytes | None]
"""None: not of this grammar."""

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 255, 256, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e38,
    1e39, 1e308, 65504.0, 65520.0, "", "a", "x", "FP32", "BYTES", "\u00e9", "\ud800", "\0", "1.5", [], [[]], {},
    [1, 2, 3], [None],
)  # fmt: skip
_KEYS = (
    "inputs", "outputs", "parameters", "data", "shape", "datatype", "name", "id", "binary_data", "binary_data_size",
    "binary_data_output", "classification", "priority", "timeout", "instances", "b64", "text_input", "input_data",
    "models", "options", "limits", "batching", "padding", "providers", "weight", "role", "digest", "x",
)  # fmt: skip


# ------------------------------------------------------------------------------------------ JSON
def json_body(data: bytes, rng: random.Random) -> bytes | None:
    """One byte, then JSON."""
    try:
        value = json.loads(data[1:])
    except (ValueError, RecursionError):
        return None
    changed = _dumped(value, rng)
    return None if changed is None else data[:1] + changed


def binary_body(data: bytes, rng: random.Random) -> bytes | None:
    """One byte, the length of the JSON part in two, that part, tensors."""
    length = int.from_bytes(data[1:3], "little")
    try:
        value = json.loads(data[3 : 3 + length])
    except (ValueError, RecursionError):
        return None
    changed = _dumped(value, rng)
    if changed is None or len(changed) >= 1 << 16:
        return None
    return data[:1] + len(changed).to_bytes(2, "little") + changed + data[3 + length :]


def _dumped(value: Any, rng: random.Random) -> bytes | None:
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = _changed(value, rng)
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=rng.random() < 0.5).encode(
            "utf-8", "surrogatepass"
        )
    except (ValueError, RecursionError):
        return None


def _changed(value: Any, rng: random.Random) -> Any:
    """One node of the tree is another one."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], _changed(value[at], rng), *value[at + 1 :]]
    return _replaced(value, rng)


def _replaced(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        return _object(value, rng)
    if isinstance(value, list):
        return _list(value, rng)
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 0.5, 2**31)) if abs(value) < 1e300 else 0
    if isinstance(value, str) and rng.random() < 0.5:
        at = rng.randint(0, len(value))
        return value[:at] + rng.choice(("\0", "\ud800", "\u00e9", '"', "a" * 20, "")) + value[at + rng.randint(0, 1) :]
    return [value] if rng.random() < 0.1 else rng.choice(_VALUES)


def _object(value: dict[str, Any], rng: random.Random) -> Any:
    match rng.randrange(4):
        case 0 if value:
            gone = rng.choice(list(value))
            return {key: entry for key, entry in value.items() if key != gone}
        case 1:
            return {**value, rng.choice(_KEYS): rng.choice(_VALUES)}
        case 2 if value:
            return {rng.choice(_KEYS) if rng.random() < 0.5 else key: entry for key, entry in value.items()}
        case _:
            return rng.choice(_VALUES)


def _list(value: list[Any], rng: random.Random) -> Any:
    match rng.randrange(5):
        case 0:
            return value[: rng.randint(0, len(value))]
        case 1 if value and len(value) < 200:
            return value * rng.randint(2, 4)
        case 2:
            return [*value, rng.choice(_VALUES)]
        case 3:
            return [value]
        case _:
            return rng.choice(_VALUES)


# ------------------------------------------------------------------------------------------ Protocol Buffers
def infer_message(data: bytes, rng: random.Random) -> bytes | None:
    """One byte, then a ModelInferRequest."""
    from modelpier_server.protocol.grpc.generated.inference_pb2 import ModelInferRequest  # noqa: PLC0415

    changed = _message(ModelInferRequest(), data[1:], rng)
    return None if changed is None else data[:1] + changed


def onnx_model(data: bytes, rng: random.Random) -> bytes | None:
    from onnx import ModelProto  # noqa: PLC0415 - few targets wait for it

    return _message(ModelProto(), data, rng)


def _message(message: Message, raw: bytes, rng: random.Random) -> bytes | None:
    try:
        message.ParseFromString(raw)
    except DecodeError:
        return None
    for _ in range(rng.choice((1, 1, 2, 4))):
        _change(message, rng)
    return bytes(message.SerializeToString())


def _change(message: Message, rng: random.Random) -> None:
    """One field of it, or of a message within it, is another one."""
    present = [field for field, _ in message.ListFields()]
    if not present or rng.random() < 0.15:
        present = list(message.DESCRIPTOR.fields)
    if not present:
        return
    field = rng.choice(present)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        if rng.random() < 0.3:
            message.ClearField(field.name)
    elif rng.random() < 0.08:
        message.ClearField(field.name)
    elif _repeated(field):
        _change_list(getattr(message, field.name), field, rng)
    elif field.message_type is not None:
        _change(getattr(message, field.name), rng)
    else:
        setattr(message, field.name, _scalar(field, rng))


def _repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)


def _change_list(values: Any, field: FieldDescriptor, rng: random.Random) -> None:
    at = rng.randrange(len(values)) if len(values) else 0
    match rng.randrange(4):
        case 0 if len(values):
            del values[at]
        case 1 if len(values) < 64:
            if field.message_type is None:
                values.append(_scalar(field, rng))
            elif len(values):
                values.add().CopyFrom(values[at])
        case _ if len(values):
            if field.message_type is None:
                values[at] = _scalar(field, rng)
            else:
                _change(values[at], rng)


_WHOLE = (0, 1, 2, 3, -1, 7, 16, 255, 2**31 - 1, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
_TEXT = ("", "x", "y", "FP32", "BYTES", "Identity", "Loop", "If", "ai.onnx.contrib", "\u00e9", "../../etc/passwd")


def _scalar(field: FieldDescriptor, rng: random.Random) -> Any:
    kind = field.cpp_type
    if kind in {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}:
        return rng.choice((0.0, 1.0, -1.5, float("nan"), float("inf"), 1e38))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_STRING:
        text = rng.choice(_TEXT)
        return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    value = rng.choice(_WHOLE)
    if kind == FieldDescriptor.CPPTYPE_INT32:
        return max(-(2**31), min(value, 2**31 - 1))
    if kind == FieldDescriptor.CPPTYPE_UINT32:
        return abs(value) % 2**32
    return abs(value) if kind == FieldDescriptor.CPPTYPE_UINT64 else value


GRAMMARS: Mapping[str, Mutator] = {
    "json": json_body,
    "binary": binary_body,
    "infer_message": infer_message,
    "onnx": onnx_model,
}
