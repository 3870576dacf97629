"""The plainest request that can work: `POST /model {"model_name", "input_data"}` -> `{"output_data"}`.

`input_data` maps each input's name to nested lists, or is the nested lists themselves where the model has one input;
the shape is what the nesting says. `output_data` maps names to nested lists, or is the nested lists themselves where
the model has one output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy.typing as npt

from modelpier_server.protocol import nested
from modelpier_server.protocol.http import Body
from modelpier_server.protocol.infer_response import dump
from modelpier_server.protocol.reading import decoded
from modelpier_server.protocol.signature import Signature


class PlainRequest(msgspec.Struct, gc=False):
    model_name: str
    input_data: msgspec.Raw
    model_version: str | None = None


class PlainInputs(msgspec.Struct, gc=False, tag=True):
    inputs: nested.Inputs


_decode = msgspec.json.Decoder(PlainRequest).decode


def decode(body: Body) -> PlainRequest:
    """Raises InvalidRequest naming the field."""
    return decoded(_decode, body, "request")


def inputs_of(request: PlainRequest, signature: Signature) -> nested.Inputs:
    """The model's inputs. Raises InvalidRequest naming the field."""
    return nested.inputs_of(request.input_data, signature, "input_data")


def encode(signature: Signature, arrays: Sequence[npt.NDArray[Any]]) -> bytes:
    """Raises InvalidRequest where an output holds NaN or infinity; the binary form of `/v2/models/.../infer` carries
    them.
    """
    lists = nested.by_name(signature, arrays)
    data = next(iter(lists.values())) if len(lists) == 1 else lists
    return dump({"output_data": data}, zip(signature.outputs.values(), arrays, strict=True))
