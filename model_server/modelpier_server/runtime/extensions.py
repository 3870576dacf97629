"""The operators of onnxruntime-extensions (tokenizers and other text and image work within the graph).

`onnx.load` registers them for models that import their domain, and for no others. It is the one library of custom
operators that is registered unasked: a user's own could run anything, and must be named (`custom_operators`).
"""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from modelpier_server.contract import FailureReason
from modelpier_server.errors import ModelError

DOMAIN = b"ai.onnx.contrib"
# Field numbers of ONNX's messages ModelProto and OperatorSetIdProto (onnx.proto3).
_OPSET_IMPORT, _DOMAIN = 8, 1
# Wire types of Protocol Buffers, "Encoding".
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LARGEST_IMPORT = 1 << 12
_MOST_FIELDS = 1 << 16
"""Of one message: a file that is no model could otherwise keep the reader busy, byte after byte."""


def wanted(file: Path) -> bool:
    """Whether the model imports the domain. Reads the outermost fields of the file and steps over the graph; False
    for what is no model, which ONNX Runtime then says better.
    """
    try:
        with file.open("rb") as source:
            imports = _fields(source, os.fstat(source.fileno()).st_size, _OPSET_IMPORT)
        return any(DOMAIN in _fields(BytesIO(value), len(value), _DOMAIN) for value in imports)
    except (OSError, ValueError):
        return False


def library() -> str:
    """Path of the shared library. Raises ModelError(MODEL_INVALID) where it is not installed."""
    try:
        from onnxruntime_extensions import get_library_path  # noqa: PLC0415 - few models need it
    except ImportError as error:
        raise ModelError(
            FailureReason.MODEL_INVALID,
            f"the model uses operators of {DOMAIN.decode()}: onnxruntime-extensions must be installed for it: {error}",
        ) from error
    path: str = get_library_path()
    return path


def _fields(source: BinaryIO, end: int, wanted_number: int) -> list[bytes]:
    """Values of one field of bytes of the message that ends at `end`. Raises ValueError for what is no message."""
    found: list[bytes] = []
    for _ in range(_MOST_FIELDS):
        if source.tell() >= end:
            return found
        key = _varint(source)
        number, wire_type = key >> 3, key & 7
        if not number:
            raise ValueError("a field without a number")
        if wire_type == _VARINT:
            _varint(source)
            continue
        length = _varint(source) if wire_type == _BYTES else {_FIXED64: 8, _FIXED32: 4}.get(wire_type, -1)
        if not 0 <= length <= end - source.tell():
            raise ValueError("no message of Protocol Buffers")
        if number == wanted_number and wire_type == _BYTES and length <= _LARGEST_IMPORT:
            found.append(source.read(length))
        else:
            source.seek(length, os.SEEK_CUR)
    raise ValueError("more fields than a model has")


def _varint(source: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        if not (byte := source.read(1)):
            raise ValueError("the message ends within a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number of more than ten bytes")
