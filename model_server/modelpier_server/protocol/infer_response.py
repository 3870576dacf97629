"""Output tensors to the body of an answer, as JSON or with binary tensors behind it.

Called by the transport once per answered request. JSON knows neither NaN nor infinity nor half precision: an output
that has no JSON form is an error that names the way to get it, never a silent `null`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol import binary, classification
from modelpier_server.protocol.datatypes import FLOATS
from modelpier_server.protocol.infer_request import InferRequest
from modelpier_server.protocol.shape import BINARY_REMEDY, JSON_LIMIT, check_output
from modelpier_server.protocol.signature import Signature, Slot

Named = Iterable[tuple[Slot, npt.NDArray[Any]]]


class Encoded(msgspec.Struct, gc=False):
    """An answer's body: JSON, then binary tensors."""

    json: bytes
    tensors: Sequence[bytes | memoryview] = ()


def encode(
    name: str, version: str, request: InferRequest, signature: Signature, arrays: Sequence[npt.NDArray[Any]]
) -> Encoded:
    """Answer to `request`; `arrays` in the order of its outputs.

    Raises InvalidRequest where an output cannot be written as JSON but was not asked for as binary.
    """
    slots = signature.outputs
    chosen: Sequence[Slot] = (
        tuple(slots.values()) if request.outputs is None else [slots[output] for output in request.outputs]
    )
    if request.classes is not None:
        chosen, arrays = classification.apply(request.classes, chosen, arrays)
    tensors: list[bytes | memoryview] = []
    outputs: list[dict[str, Any]] = []
    for slot, array in zip(chosen, arrays, strict=True):
        entry: dict[str, Any] = {"name": slot.spec.name, "datatype": slot.datatype.name, "shape": array.shape}
        if request.binary is True or (request.binary and slot.spec.name in request.binary):
            if array.dtype.hasobject:
                check_output(slot, array.size, json=False)
            tensors.append(tensor := binary.bytes_of(array))
            entry["parameters"] = {"binary_data_size": len(tensor)}
        else:
            entry["data"] = _json_data(slot, array)
        outputs.append(entry)
    answer: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": outputs}
    if request.id is not None:
        answer["id"] = request.id
    return Encoded(dump(answer, zip(chosen, arrays, strict=True), request.binary), tensors)


def dump(answer: dict[str, Any], outputs: Named, skip: bool | frozenset[str] = False) -> bytes:
    """JSON of `answer`. Raises InvalidRequest where an output that is in it (not in `skip`) holds NaN or infinity."""
    raw = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    # orjson writes `null` for NaN and infinity: to look for it is far cheaper than to test every array.
    if b"null" in raw and skip is not True:
        for slot, array in outputs:
            if not (skip and slot.spec.name in skip):
                _check_finite(slot, array)
    return raw


def _json_data(slot: Slot, array: npt.NDArray[Any]) -> Any:
    if slot.datatype.json is None:
        raise InvalidRequest(f"output '{slot.name}': {slot.datatype.name} has no JSON form; {BINARY_REMEDY}")
    flat = array.ravel()
    if flat.dtype.hasobject:
        check_output(slot, flat.size, json=True)
        return flat.tolist()
    if flat.size > JSON_LIMIT:
        check_output(slot, flat.size, json=True)
    return flat


def _check_finite(slot: Slot, array: npt.NDArray[Any]) -> None:
    if slot.datatype.name in FLOATS and not np.isfinite(array).all():
        raise InvalidRequest(f"output '{slot.name}': holds NaN or infinity, which JSON cannot say; {BINARY_REMEDY}")
