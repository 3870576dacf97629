"""The binary extension against vectors that were written by hand from its specification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelpier_server.contract import TensorSpec
from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol import binary
from modelpier_server.protocol.datatypes import DATATYPES
from modelpier_server.protocol.infer_request import decode
from modelpier_server.protocol.infer_response import encode
from modelpier_server.protocol.signature import Signature, Slot

GOLDEN = json.loads((Path(__file__).parents[3] / "golden/binary_extension.json").read_text())
U32_AND_BOOL = Signature.of(
    [TensorSpec("input0", "UINT32", (-1, 2)), TensorSpec("input1", "BOOL", (3,))],
    [TensorSpec("output0", "UINT32", (-1, 2)), TensorSpec("output1", "BOOL", (3,))],
)


def slot(datatype: str, shape: tuple[int, ...]) -> Slot:
    return Slot(TensorSpec("x", datatype, shape), DATATYPES[datatype])


@pytest.mark.parametrize("vector", GOLDEN["tensors"], ids=lambda vector: vector["datatype"])
def test_tensors_byte_for_byte(vector: dict[str, Any]) -> None:
    raw, shape = bytes.fromhex(vector["hex"]), vector["shape"]
    array = binary.array_of(memoryview(raw), slot(vector["datatype"], tuple(shape)), shape, int(np.prod(shape)), "x")
    assert array.tolist() == vector["values"]
    assert array.dtype == DATATYPES[vector["datatype"]].numpy
    assert bytes(binary.bytes_of(array)) == raw
    strided = np.stack([array, array], axis=-1)[..., 0]
    assert bytes(binary.bytes_of(strided)) == raw


def test_every_datatype_has_a_vector() -> None:
    assert {vector["datatype"] for vector in GOLDEN["tensors"]} == set(DATATYPES)


@pytest.mark.parametrize("vector", GOLDEN["requests"], ids=lambda vector: vector["about"])
def test_messages_byte_for_byte(vector: dict[str, Any]) -> None:
    head, tail = vector["json"].encode(), bytes.fromhex(vector["tail"])
    request = decode(head + tail, len(head), U32_AND_BOOL)
    by_name = {"output0": request.inputs["input0"], "output1": request.inputs["input1"]}
    arrays = [by_name[name] for name in request.outputs or U32_AND_BOOL.outputs]
    encoded = encode(vector["model"], "1", request, U32_AND_BOOL, arrays)
    assert encoded.json.decode() == vector["response_json"]
    assert b"".join(map(bytes, encoded.tensors)) == bytes.fromhex(vector["response_tail"])


def test_misaligned_data_is_copied_and_aligned_data_is_not() -> None:
    body = bytearray(b"\0" + np.arange(3, dtype="<f4").tobytes() + b"\0" * 7)
    base = np.frombuffer(body, np.uint8).ctypes.data
    for start in range(4):
        array = binary.array_of(memoryview(body)[start : start + 12], slot("FP32", (3,)), [3], 3, "x")
        assert array.flags.aligned
        assert np.shares_memory(array, np.frombuffer(body, np.uint8)) == ((base + start) % 4 == 0)


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [((2, 3), 24, (2, 3)), ((-1, 3), 24, (2, 3)), ((2, -1), 24, (2, 3)), ((-1, -1), 24, (1, 6)), ((-1,), 24, (6,))],
)
def test_shapes_of_raw_requests(shape: tuple[int, ...], size: int, expected: tuple[int, ...]) -> None:
    assert binary.raw_input(memoryview(bytes(size)), slot("FP32", shape)).shape == expected


@pytest.mark.parametrize(
    ("shape", "size"), [((2, 3), 20), ((-1, 3), 20), ((-1, 3), 0), ((-1, -1, -1), 24), ((0, -1), 0)]
)
def test_raw_requests_that_do_not_fit(shape: tuple[int, ...], size: int) -> None:
    with pytest.raises(InvalidRequest, match="raw body for input 'x'"):
        binary.raw_input(memoryview(bytes(size)), slot("FP32", shape))


def test_a_raw_string_is_one_element() -> None:
    assert binary.raw_input(memoryview("grün".encode()), slot("BYTES", (-1, 1))).tolist() == [["grün"]]
