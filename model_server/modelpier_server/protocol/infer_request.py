"""A `POST .../infer` body to checked tensors: JSON, JSON with binary tensors behind it, or raw.

Called by the transport for every request; all that can be wrong with a request is found here and named by its field,
before the request joins a batch. Sources: Open Inference Protocol `inference_rest.md`; Triton's
`extension_binary_data.md`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Annotated, Any, Protocol

import msgspec
import numpy.typing as npt

from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol import binary, elements
from modelpier_server.protocol.classification import UNSORTED
from modelpier_server.protocol.datatypes import DATATYPES
from modelpier_server.protocol.http import Body
from modelpier_server.protocol.reading import decoded
from modelpier_server.protocol.shape import check_shape
from modelpier_server.protocol.signature import Signature, Slot


class TensorParameters(msgspec.Struct, gc=False):
    binary_data_size: int | None = None


class InputTensor(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: TensorParameters | None = None


class Declared(Protocol):
    """An input as its sender describes it, in JSON or over gRPC."""

    @property
    def name(self) -> str: ...
    @property
    def datatype(self) -> str: ...


class OutputParameters(msgspec.Struct, gc=False):
    binary_data: bool | None = None
    classification: int | None = None


class OutputChoice(msgspec.Struct, gc=False):
    name: str
    parameters: OutputParameters | None = None


class RequestParameters(msgspec.Struct, gc=False):
    binary_data_output: bool | None = None
    priority: Annotated[int, msgspec.Meta(ge=0)] | None = None
    timeout: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Microseconds, as Triton has it; 0 means nothing."""


class Message(msgspec.Struct, gc=False):
    """The JSON part. Fields that are not named here are allowed and ignored, as the protocol says of parameters."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: RequestParameters | None = None
    outputs: list[OutputChoice] | None = None


class InferRequest(msgspec.Struct, gc=False, tag=True):
    """A request that the model takes. (A Struct costs a third of a dataclass, and this is made once per request.)"""

    id: str | None
    inputs: dict[str, npt.NDArray[Any]]
    outputs: tuple[str, ...] | None
    """Names in the order asked for; None: all, in the model's order."""
    binary: bool | frozenset[str]
    """Whether all outputs go out as binary, or which of them."""
    classes: dict[str, int] | None = None
    """Outputs that go out as a ranking of so many classes."""
    priority: int = 0
    """1 is the first; 0: the model's default."""
    timeout: float | None = None
    """Seconds that the client gives it."""


_decode = msgspec.json.Decoder(Message).decode


def decode(body: Body, header_length: int | None, signature: Signature) -> InferRequest:
    """Tensors of a request. `header_length` is the value of Inference-Header-Content-Length, None without it.

    Raises InvalidRequest naming the field and the remedy. The arrays may be read-only views of `body`.
    """
    if header_length is None:
        return _request(_message(body), None, signature)
    if header_length == 0:
        return _raw(memoryview(body), signature)
    if not 0 < header_length <= len(body):
        raise InvalidRequest(
            f"Inference-Header-Content-Length: {header_length} is not within the body of {len(body)} bytes"
        )
    view = memoryview(body)
    return _request(_message(view[:header_length]), view[header_length:], signature)


def _message(raw: Body) -> Message:
    return decoded(_decode, raw, "request")


def _raw(view: memoryview, signature: Signature) -> InferRequest:
    if len(signature.inputs) != 1:
        raise InvalidRequest(
            f"Inference-Header-Content-Length: 0 means a raw tensor, but the model has {len(signature.inputs)} inputs"
        )
    (slot,) = signature.inputs.values()
    return InferRequest(None, {slot.name: binary.raw_input(view, slot)}, None, binary=True)


def _request(message: Message, tail: memoryview | None, signature: Signature) -> InferRequest:
    inputs: dict[str, npt.NDArray[Any]] = {}
    used = 0
    for index, tensor in enumerate(message.inputs):
        slot = input_slot(tensor, index, inputs, signature)
        count = check_shape(tensor.shape, slot, signature, f"inputs[{index}].shape")
        size = tensor.parameters.binary_data_size if tensor.parameters is not None else None
        if size is None:
            inputs[slot.name] = _json_tensor(tensor, slot, count, index)
        else:
            inputs[slot.name] = _binary_tensor(tensor, slot, count, index, _cut(tail, used, size, index))
            used += size
    if len(inputs) != len(signature.inputs):
        missing = ", ".join(f"'{name}'" for name in signature.inputs if name not in inputs)
        raise InvalidRequest(f"inputs: {missing} missing")
    if tail is not None and used != tail.nbytes:
        raise InvalidRequest(
            f"body: {tail.nbytes} bytes follow the JSON part, but the inputs' binary_data_size sum up to {used}"
        )
    request = InferRequest(message.id, inputs, *_choice(message, signature))
    if (parameters := message.parameters) is not None:
        request.priority = parameters.priority or 0
        request.timeout = parameters.timeout / 1e6 if parameters.timeout else None
    return request


def input_slot(tensor: Declared, index: int, seen: Container[str], signature: Signature) -> Slot:
    """What the model takes under the tensor's name. Raises InvalidRequest; `seen` are the names before it."""
    slot = signature.inputs.get(tensor.name)
    if slot is None:
        names = ", ".join(f"'{name}'" for name in signature.inputs)
        raise InvalidRequest(f"inputs[{index}].name: the model has no input '{tensor.name}'; it has {names}")
    if tensor.name in seen:
        raise InvalidRequest(f"inputs[{index}].name: '{tensor.name}' is given twice")
    if tensor.datatype != slot.datatype.name:
        if tensor.datatype not in DATATYPES:
            raise InvalidRequest(f"inputs[{index}].datatype: '{tensor.datatype}' is none of {', '.join(DATATYPES)}")
        raise InvalidRequest(
            f"inputs[{index}].datatype: {tensor.datatype}, but input '{tensor.name}' takes {slot.datatype.name}"
        )
    return slot


def _json_tensor(tensor: InputTensor, slot: Slot, count: int, index: int) -> npt.NDArray[Any]:
    where = f"inputs[{index}].data"
    if tensor.data is msgspec.UNSET:
        raise InvalidRequest(f"{where}: missing; give data, or parameters.binary_data_size and binary data")
    return elements.array_of(tensor.data, slot.datatype, tensor.shape, count, where)


def _binary_tensor(tensor: InputTensor, slot: Slot, count: int, index: int, view: memoryview) -> npt.NDArray[Any]:
    if tensor.data is not msgspec.UNSET:
        raise InvalidRequest(f"inputs[{index}]: has both data and parameters.binary_data_size; give one")
    return binary.array_of(view, slot, tensor.shape, count, f"inputs[{index}] binary data")


def _cut(tail: memoryview | None, start: int, size: int, index: int) -> memoryview:
    where = f"inputs[{index}].parameters.binary_data_size"
    if tail is None:
        raise InvalidRequest(f"{where}: binary data needs the header Inference-Header-Content-Length (bytes of JSON)")
    if not 0 <= size <= tail.nbytes - start:
        raise InvalidRequest(f"{where}: {size}, but {tail.nbytes - start} bytes are left in the body")
    return tail[start : start + size]


def _choice(
    message: Message, signature: Signature
) -> tuple[tuple[str, ...] | None, bool | frozenset[str], dict[str, int] | None]:
    """Which outputs, which of them as binary, which of them as classes."""
    parameters = message.parameters
    default = parameters is not None and parameters.binary_data_output is True
    if not message.outputs:
        return None, default, None
    for index, output in enumerate(message.outputs):
        _check_output(output, index, message.outputs, signature)
    names = tuple(output.name for output in message.outputs)
    binaries = frozenset(output.name for output in message.outputs if _is_binary(output, default))
    return names, binaries, _classes(message.outputs)


def _is_binary(output: OutputChoice, default: bool) -> bool:
    chosen = output.parameters.binary_data if output.parameters is not None else None
    return default if chosen is None else chosen


def check_output_name(name: str, index: int, earlier: Iterable[str], signature: Signature) -> None:
    """Raises InvalidRequest for an output that the model has not, or that was asked for before."""
    if name not in signature.outputs:
        names = ", ".join(f"'{known}'" for known in signature.outputs)
        raise InvalidRequest(f"outputs[{index}].name: the model has no output '{name}'; it has {names}")
    if name in earlier:
        raise InvalidRequest(f"outputs[{index}].name: '{name}' is asked for twice")


def _check_output(output: OutputChoice, index: int, outputs: Sequence[OutputChoice], signature: Signature) -> None:
    check_output_name(output.name, index, (other.name for other in outputs[:index]), signature)
    if output.parameters is not None and output.parameters.classification is not None:
        _check_classes(output.parameters.classification, index, signature.outputs[output.name])


def _check_classes(count: int, index: int, slot: Slot) -> None:
    where = f"outputs[{index}].parameters.classification"
    if count < 0:
        raise InvalidRequest(f"{where}: must be a number of classes, 0 for none")
    if slot.datatype.name in UNSORTED:
        raise InvalidRequest(f"{where}: output '{slot.name}' is {slot.datatype.name}, which has no order")


def _classes(outputs: Sequence[OutputChoice]) -> dict[str, int] | None:
    found = {output.name: output.parameters.classification for output in outputs if output.parameters is not None}
    return {name: count for name, count in found.items() if count} or None
