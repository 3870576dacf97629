"""Tensors in files, as ONNX writes them (`TensorProto`, a `.pb` file): those of a model's golden tests.

The server has no `onnx` package. The message is described here, in a pool of its own: in protobuf's common one it would
be at odds with that package where both are imported. Source: onnx.proto3, "message TensorProto".
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpier_server.protocol.datatypes import DATATYPES, Datatype

_NAMES = {
    1: "FP32",
    2: "UINT8",
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    6: "INT32",
    7: "INT64",
    8: "BYTES",
    9: "BOOL",
    10: "FP16",
    11: "FP64",
    12: "UINT32",
    13: "UINT64",
    16: "BF16",
}
_EXTERNAL = 1
_FIELDS = (
    ("dims", 1, "INT64", True),
    ("data_type", 2, "INT32", False),
    ("float_data", 4, "FLOAT", True),
    ("int32_data", 5, "INT32", True),
    ("string_data", 6, "BYTES", True),
    ("int64_data", 7, "INT64", True),
    ("name", 8, "STRING", False),
    ("raw_data", 9, "BYTES", False),
    ("double_data", 10, "DOUBLE", True),
    ("uint64_data", 11, "UINT64", True),
    ("data_location", 14, "INT32", False),
)
_PLACES = {"FP32": "float_data", "FP64": "double_data", "INT64": "int64_data"} | dict.fromkeys(
    ("UINT32", "UINT64"), "uint64_data"
)
"""Of the elements of a tensor without raw bytes; others are in int32_data."""
_BITS = {"FP16", "BF16"}
"""In int32_data as bits, not as numbers."""


def read(raw: bytes) -> tuple[str, npt.NDArray[Any]]:
    """Name (may be empty) and values. Raises ValueError."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - few servers need it

    message = _message()()
    try:
        message.ParseFromString(raw)
    except DecodeError as error:
        raise ValueError("it is no tensor of ONNX (TensorProto)") from error
    if message.data_type not in _NAMES:
        raise ValueError(f"its data_type {message.data_type} is none that can be served")
    if message.data_location == _EXTERNAL:
        raise ValueError("its data lies in another file, which is not read: save it with its data")
    datatype = DATATYPES[_NAMES[message.data_type]]
    return message.name, _values(message, datatype).reshape(tuple(message.dims))


def _values(message: Any, datatype: Datatype) -> npt.NDArray[Any]:
    """Raises ValueError."""
    if datatype.name == "BYTES":
        return np.array([value.decode() for value in message.string_data], np.object_)
    if message.raw_data:
        return np.frombuffer(message.raw_data, datatype.numpy)
    values = [*getattr(message, _PLACES.get(datatype.name, "int32_data"))]  # numpy checks the range of plain numbers
    try:
        if datatype.name in _BITS:
            return np.array(values, np.uint16).view(datatype.numpy)
        return np.array(values, datatype.numpy)
    except OverflowError as error:
        raise ValueError(f"an element does not fit {datatype.name}: {error}") from error


@cache
def _message() -> Any:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto  # noqa: PLC0415
    from google.protobuf.descriptor_pool import DescriptorPool  # noqa: PLC0415
    from google.protobuf.message_factory import GetMessageClass  # noqa: PLC0415

    file = FileDescriptorProto(name="onnx_tensor.proto", package="modelpier.onnx", syntax="proto2")
    tensor = file.message_type.add(name="TensorProto")
    for name, number, kind, repeated in _FIELDS:
        label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        kind_number = getattr(FieldDescriptorProto, f"TYPE_{kind}")
        tensor.field.add(name=name, number=number, type=kind_number, label=label)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName("modelpier.onnx.TensorProto"))
