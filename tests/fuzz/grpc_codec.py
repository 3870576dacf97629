"""ModelInferRequest from whatever bytes come. The first byte chooses the model, as in `codecs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fuzz.codecs import MODELS, SIGNATURES, check_inputs, chosen, refused, same
from fuzz.targets import Check
from modelpier_server.errors import ServerError
from modelpier_server.protocol import binary
from modelpier_server.protocol.grpc.decode import CONTENTS, decode
from modelpier_server.protocol.grpc.encode import encode
from modelpier_server.protocol.grpc.generated.inference_pb2 import ModelInferRequest
from modelpier_server.protocol.grpc.messages import dump, parse
from modelpier_server.protocol.infer_request import InferRequest
from modelpier_server.protocol.signature import Signature, Slot


def make_grpc() -> Check:
    def check(data: bytes) -> None:
        signature, raw = chosen(data)
        try:
            request = decode(parse(ModelInferRequest, raw), signature)
        except ServerError as error:
            refused(error)
            return
        check_inputs(request.inputs, signature)
        names = tuple(signature.outputs) if request.outputs is None else request.outputs
        dump(encode("m", "1", request, signature, [request.inputs[name] for name in names]))
        _asked_again(request, signature)

    return check


def _asked_again(request: InferRequest, signature: Signature) -> None:
    """What was taken, sent raw, is taken as the same."""
    message = ModelInferRequest(model_name="m")
    for name, array in request.inputs.items():
        message.inputs.add(name=name, datatype=signature.inputs[name].datatype.name, shape=array.shape)
        message.raw_input_contents.append(bytes(binary.bytes_of(array)))
    again = decode(parse(ModelInferRequest, dump(message)), signature)
    for name, array in request.inputs.items():
        assert same(array, again.inputs[name]), name


def seeds_grpc() -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    for index, (_, signature) in enumerate(zip(MODELS, SIGNATURES, strict=True)):
        raw = ModelInferRequest(model_name="m", id="7")
        typed = ModelInferRequest(model_name="m")
        typed.parameters["priority"].int64_param = 1
        typed.parameters["binary_data_output"].bool_param = True
        typed.outputs.add(name=next(iter(signature.outputs)))
        for slot in signature.inputs.values():
            array = np.ones([2 if size == -1 else size for size in slot.spec.shape], slot.datatype.numpy)
            if array.dtype.hasobject:
                array[...] = "a"
            shape = {"name": slot.name, "datatype": slot.datatype.name, "shape": array.shape}
            raw.inputs.add(**shape)
            raw.raw_input_contents.append(bytes(binary.bytes_of(array)))
            _add_typed(typed.inputs.add(**shape), slot, array)
        found[f"raw-{index}"] = bytes([index]) + dump(raw)
        found[f"typed-{index}"] = bytes([index]) + dump(typed)
    return found


def _add_typed(tensor: Any, slot: Slot, array: np.ndarray) -> None:
    if (field := CONTENTS.get(slot.datatype.name)) is not None:
        values = array.ravel().tolist()
        getattr(tensor.contents, field).extend(v.encode() if isinstance(v, str) else v for v in values)
