"""A ModelInferRequest to checked tensors: typed contents, or raw contents for all inputs.

Called by the transport for every request; what can be wrong is found here and named by its field, as `infer_request`
does for JSON. Sources: Open Inference Protocol `inference_grpc.md`; Triton's `grpc_service.proto`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol import binary
from modelpier_server.protocol.grpc.generated.inference_pb2 import InferParameter, ModelInferRequest
from modelpier_server.protocol.infer_request import InferRequest, check_output_name, input_slot
from modelpier_server.protocol.shape import check_shape
from modelpier_server.protocol.signature import Signature, Slot

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Field of InferTensorContents that holds a datatype."""
TYPED_LIMIT = 1 << 24
"""Elements that are taken one by one, some 60 ns each, while everybody else waits."""
_WIDE = {"int_contents": np.dtype(np.int32), "uint_contents": np.dtype(np.uint32)}
"""What the fields hold that carry narrower datatypes, too."""
_CLASSIFICATION = "classification"
_SHARED_MEMORY = "shared_memory_region"

Input = ModelInferRequest.InferInputTensor


def decode(message: ModelInferRequest, signature: Signature) -> InferRequest:
    """Tensors of a request; `binary` of what is returned says whether the answer has raw contents.

    Raises InvalidRequest naming the field and the remedy. The arrays may be read-only views of `message`'s bytes.
    """
    tensors, raw = message.inputs[:], message.raw_input_contents[:]  # lists: protobuf's own containers are slow
    if raw and len(raw) != len(tensors):
        raise InvalidRequest(f"raw_input_contents: {len(raw)} for {len(tensors)} inputs; give one per input, or none")
    inputs: dict[str, npt.NDArray[Any]] = {}
    for index, tensor in enumerate(tensors):
        slot = input_slot(tensor, index, inputs, signature)
        shape = tensor.shape[:]
        count = check_shape(shape, slot, signature, f"inputs[{index}].shape")
        _refuse_shared_memory(tensor.parameters, f"inputs[{index}]")
        if raw:
            _check_empty(tensor, index)
            view, where = memoryview(raw[index]), f"raw_input_contents[{index}]"
            inputs[slot.name] = binary.array_of(view, slot, shape, count, where)
        else:
            inputs[slot.name] = _typed_tensor(tensor, slot, count, index).reshape(shape)
    if len(inputs) != len(signature.inputs):
        missing = ", ".join(f"'{name}'" for name in signature.inputs if name not in inputs)
        raise InvalidRequest(f"inputs: {missing} missing")
    request = InferRequest(message.id, inputs, _choice(message, signature), binary=_wants_raw(message))
    if len(message.parameters):
        request.priority = _whole(message.parameters, "priority")
        request.timeout = _whole(message.parameters, "timeout") / 1e6 or None
    return request


def _check_empty(tensor: Input, index: int) -> None:
    if tensor.HasField("contents") and tensor.contents.ByteSize():
        raise InvalidRequest(f"inputs[{index}].contents: must be empty where raw_input_contents are given")


def _typed_tensor(tensor: Input, slot: Slot, count: int, index: int) -> npt.NDArray[Any]:
    """Flat."""
    where = f"inputs[{index}].contents"
    name = slot.datatype.name
    field = CONTENTS.get(name)
    if field is None:
        raise InvalidRequest(f"{where}: {name} has no typed contents; send it in raw_input_contents")
    if other := [found.name for found, _ in tensor.contents.ListFields() if found.name != field]:
        raise InvalidRequest(f"{where}.{other[0]}: not for {name}, whose elements go into {field}")
    values = getattr(tensor.contents, field)
    where = f"{where}.{field}"
    if count > TYPED_LIMIT:
        raise InvalidRequest(f"{where}: more than {TYPED_LIMIT} elements; send them in raw_input_contents")
    if len(values) != count:
        raise InvalidRequest(f"{where}: {len(values)} elements, but the shape {list(tensor.shape)} has {count}")
    if name == "BYTES":
        return _strings(values, where)
    array = np.fromiter(values, _WIDE.get(field, slot.datatype.numpy), count)
    return array if array.dtype == slot.datatype.numpy else _narrow(array, slot, where)


def _narrow(array: npt.NDArray[Any], slot: Slot, where: str) -> npt.NDArray[Any]:
    limits = np.iinfo(slot.datatype.numpy)
    if array.size and not limits.min <= array.min() <= array.max() <= limits.max:
        raise InvalidRequest(f"{where}: an element does not fit {slot.datatype.name}: {limits.min} to {limits.max}")
    return array.astype(slot.datatype.numpy)


def _strings(values: Any, where: str) -> npt.NDArray[np.object_]:
    array, texts = np.empty(len(values), np.object_), list[str]()
    try:
        texts.extend(map(bytes.decode, values))
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{where} element {len(texts)}: not UTF-8, as strings of ONNX are; base64 carries other bytes"
        ) from error
    array[:] = texts
    return array


def _choice(message: ModelInferRequest, signature: Signature) -> tuple[str, ...] | None:
    """Names of the outputs that are asked for; None: all."""
    if not len(message.outputs):  # much faster than its truth, as for all of protobuf's containers
        return None
    names: list[str] = []
    for index, output in enumerate(message.outputs):
        check_output_name(output.name, index, names, signature)
        _refuse_shared_memory(output.parameters, f"outputs[{index}]")
        if output.parameters and _CLASSIFICATION in output.parameters:
            raise InvalidRequest(
                f"outputs[{index}].parameters.{_CLASSIFICATION}: not supported; take the scores themselves"
            )
        names.append(output.name)
    return tuple(names)


def _wants_raw(message: ModelInferRequest) -> bool:
    """As the request came, unless it says otherwise."""
    if len(message.parameters) and "binary_data_output" in message.parameters:
        return bool(message.parameters["binary_data_output"].bool_param)
    return len(message.raw_input_contents) > 0


def _whole(parameters: Mapping[str, InferParameter], name: str) -> int:
    """0 where it is not given. Clients send either kind of whole number."""
    if name not in parameters:
        return 0
    given = parameters[name]
    kind = given.WhichOneof("parameter_choice")
    value = int(getattr(given, kind)) if kind in ("int64_param", "uint64_param") else -1
    if value < 0:
        raise InvalidRequest(f"parameters.{name}: must be a whole number (int64_param, uint64_param), 0 or more")
    return value


def _refuse_shared_memory(parameters: Mapping[str, InferParameter], where: str) -> None:
    if len(parameters) and _SHARED_MEMORY in parameters:
        raise InvalidRequest(f"{where}.parameters.{_SHARED_MEMORY}: not supported here; send the tensor itself")
