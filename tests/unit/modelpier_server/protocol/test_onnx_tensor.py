"""Tensors in ONNX's files, against ONNX's own package."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelpier_server.protocol import onnx_tensor
from modelpier_server.protocol.datatypes import DATATYPES
from support.onnx_models import ELEMENT_TYPES

NUMBERS = [name for name in DATATYPES if name != "BYTES"]


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_datatype_comes_back(datatype: str, raw: bool) -> None:
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(DATATYPES[datatype].numpy)
    given: Any = values.tobytes() if raw else values.ravel().tolist()
    made = helper.make_tensor("x", ELEMENT_TYPES[datatype], [2, 3], given, raw=raw)
    name, got = onnx_tensor.read(made.SerializeToString())
    assert (name, got.dtype) == ("x", values.dtype)
    assert np.array_equal(got, values)


def test_text_comes_back() -> None:
    given = np.array([["a", ""], ["grün", "日本"]], np.object_)
    name, got = onnx_tensor.read(numpy_helper.from_array(given, "words").SerializeToString())
    assert name == "words"
    assert np.array_equal(got, given)


@pytest.mark.parametrize("shape", [(), (0, 3)])
def test_shapes_without_rows_come_back(shape: tuple[int, ...]) -> None:
    _, got = onnx_tensor.read(numpy_helper.from_array(np.zeros(shape, np.float32)).SerializeToString())
    assert got.shape == shape


def _tensor(**fields: Any) -> bytes:
    return bytes(TensorProto(**fields).SerializeToString())


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\xff\xff", "no tensor"),
        (_tensor(data_type=TensorProto.COMPLEX64), "data_type 14"),
        (_tensor(data_type=1, dims=[3], float_data=[1.0]), "reshape"),
        (_tensor(data_type=1, dims=[1 << 60], raw_data=b"\0\0\0\0"), "reshape"),
        (_tensor(data_type=1, dims=[1], raw_data=b"\0"), "buffer size"),
        (_tensor(data_type=2, dims=[1], int32_data=[-1]), "does not fit UINT8"),
        (_tensor(data_type=8, dims=[1], string_data=[b"\xff"]), "utf-8"),
        (_tensor(data_type=1, dims=[1], data_location=TensorProto.EXTERNAL), "another file"),
    ],
)
def test_what_cannot_be_used_says_why(raw: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        onnx_tensor.read(raw)
