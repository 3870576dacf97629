"""Bodies of requests in every form that names inputs, by the form's name: for who decodes them elsewhere than where
they came, as `offload` does. What a form becomes is a Struct with `inputs` that `offload` can send.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias

import numpy as np

from modelpier_server.errors import PayloadTooLarge
from modelpier_server.protocol import generate, infer_request, plain, predict
from modelpier_server.protocol.generate import GenerateRequest
from modelpier_server.protocol.http import Body
from modelpier_server.protocol.infer_request import InferRequest
from modelpier_server.protocol.plain import PlainInputs
from modelpier_server.protocol.predict import PredictRequest
from modelpier_server.protocol.signature import Signature


class Form(StrEnum):
    INFER = "infer"
    PREDICT = "predict"
    GENERATE = "generate"
    PLAIN = "plain"
    CLOUD = "cloud"
    """`infer` or `predict`, whichever it looks like."""


Decoded: TypeAlias = InferRequest | PredictRequest | GenerateRequest | PlainInputs

COSTS: Mapping[bytes, int] = {b",": 40, b"[": 100, b"{": 100, b":": 250}
"""Bytes of memory that an element, a list, an object and a field of one take at most while they are decoded, found by
the bytes that each of them brings into the body. Those within strings are counted, too.
"""
_CHUNK = 1 << 20


def decode(form: Form, body: Body, header_length: int | None, signature: Signature) -> Decoded:
    """`header_length`: bytes of the JSON part where binary tensors follow it; None: there are none.

    Raises InvalidRequest naming the field.
    """
    match form:
        case Form.INFER:
            return infer_request.decode(body, header_length, signature)
        case Form.PREDICT:
            return predict.decode(body, signature)
        case Form.GENERATE:
            return generate.decode(body, signature)
        case Form.PLAIN:
            return PlainInputs(plain.inputs_of(plain.decode(body), signature))
        case Form.CLOUD:
            message = None if header_length is not None else predict.message_of(body)
            if message is None or predict.is_infer(message):
                return infer_request.decode(body, header_length, signature)
            return predict.read(message, signature)


def check_memory(body: Body, header_length: int | None, most: int) -> None:
    """Raises PayloadTooLarge for JSON that could take more than `most` bytes of memory when it is decoded: a few bytes
    of a body can stand for a list or an object, which take many times as much.
    """
    found = np.frombuffer(memoryview(body)[:header_length], np.uint8)
    total = len(found)
    for at in range(0, len(found), _CHUNK):
        part = found[at : at + _CHUNK]
        total += sum(cost * int(np.count_nonzero(part == mark[0])) for mark, cost in COSTS.items())
    if total > most:
        raise PayloadTooLarge(
            f"body: its JSON would take {total >> 20} MiB to decode, more than the {most >> 20} MiB that it may "
            "(16 times limits.maxBodyBytes); send fewer elements, longer lists, or the tensors in binary"
        )
