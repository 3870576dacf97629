"""Inputs that come as arrays, not through a codec, against the model's signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol.shape import check_shape
from modelpier_server.protocol.signature import Signature


def check_inputs(inputs: Mapping[str, npt.NDArray[Any]], signature: Signature) -> None:
    """Raises InvalidRequest naming the input whose name, type or shape the model does not take."""
    if inputs.keys() != signature.inputs.keys():
        raise InvalidRequest(f"inputs: {sorted(inputs)} given, but the model takes {sorted(signature.inputs)}")
    for name, slot in signature.inputs.items():
        array = inputs[name]
        if array.dtype != slot.datatype.numpy:
            raise InvalidRequest(f"input '{name}': {array.dtype} given, but the model takes {slot.datatype.name}")
        check_shape(array.shape, slot, signature, f"input '{name}'")


def check_outputs(outputs: Sequence[str] | None, signature: Signature) -> None:
    """Raises InvalidRequest naming the output that the model does not have."""
    for name in outputs or ():
        if name not in signature.outputs:
            raise InvalidRequest(f"outputs: the model has no output '{name}'; it has {sorted(signature.outputs)}")
