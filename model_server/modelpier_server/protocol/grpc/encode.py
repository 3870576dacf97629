"""Output tensors to a ModelInferResponse, with raw contents or typed ones.

Called by the transport once per answered request. gRPC says everything, NaN and infinity too: unlike in JSON nothing
is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from modelpier_server.protocol import binary
from modelpier_server.protocol.grpc.decode import CONTENTS, TYPED_LIMIT
from modelpier_server.protocol.grpc.generated.inference_pb2 import ModelInferResponse
from modelpier_server.protocol.infer_request import InferRequest
from modelpier_server.protocol.shape import check_output
from modelpier_server.protocol.signature import Signature


def encode(
    name: str, version: str, request: InferRequest, signature: Signature, arrays: Sequence[npt.NDArray[Any]]
) -> ModelInferResponse:
    """Answer to `request`; `arrays` in the order of its outputs. Contents are all raw where one of them must be, or
    is large. Raises InvalidRequest for too many strings.
    """
    slots = signature.outputs
    chosen = list(slots.values()) if request.outputs is None else [slots[output] for output in request.outputs]
    raw = request.binary or any(slot.datatype.name not in CONTENTS for slot in chosen)
    raw = raw or any(array.size > TYPED_LIMIT for array in arrays)
    answer = ModelInferResponse(model_name=name, model_version=version, id=request.id or "")
    for slot, array in zip(chosen, arrays, strict=True):
        check_output(slot, array.size, json=False)
        output = answer.outputs.add(name=slot.spec.name, datatype=slot.datatype.name)
        output.shape.extend(array.shape)
        if raw:
            answer.raw_output_contents.append(
                bytes(binary.bytes_of(array)) if array.dtype.hasobject else array.tobytes()
            )
        else:
            values = array.ravel().tolist()
            if array.dtype.hasobject:
                values = [value.encode() for value in values]
            getattr(output.contents, CONTENTS[slot.datatype.name]).extend(values)
    return answer
