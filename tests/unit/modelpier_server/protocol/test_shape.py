"""Declared shapes: bounds that hold for every protocol, as all of them ask check_shape."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpier_server.contract import TensorSpec
from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol.shape import EMPTY_LIMIT, JSON_LIMIT, STRINGS_LIMIT, check_output, check_shape
from modelpier_server.protocol.signature import Signature, Slot

FREE = Signature.of([TensorSpec("x", "FP32", (-1, -1, -1))], [])


@pytest.mark.parametrize("shape", [(10**9, 0, 1), (0, 1 << 39, 1), (EMPTY_LIMIT, 0, 2), (1 << 20, 1 << 20, 0)])
def test_nothing_cannot_be_declared_large(shape: tuple[int, ...]) -> None:
    """A body of 100 bytes would be cut into millions of runs, or make an output of gigabytes."""
    with pytest.raises(InvalidRequest, match=r"x: \[.*\] has no elements.*send fewer"):
        check_shape(shape, FREE.inputs["x"], FREE, "x")


@pytest.mark.parametrize("shape", [(0, 0, 0), (3, 0, 4), (EMPTY_LIMIT, 1, 0)])
def test_small_empty_tensors_are_taken(shape: tuple[int, ...]) -> None:
    assert check_shape(shape, FREE.inputs["x"], FREE, "x") == 0


def slot(datatype: str) -> Slot:
    return Signature.of([TensorSpec("x", datatype, (-1,))], []).inputs["x"]


def test_strings_are_bounded() -> None:
    model = Signature.of([TensorSpec("x", "BYTES", (-1,))], [])
    assert check_shape([STRINGS_LIMIT], model.inputs["x"], model, "x") == STRINGS_LIMIT
    with pytest.raises(InvalidRequest, match="x: 1048577 strings are more than"):
        check_shape([STRINGS_LIMIT + 1], model.inputs["x"], model, "x")
    assert check_shape([STRINGS_LIMIT + 1], slot("UINT8"), model, "x")


@pytest.mark.parametrize(
    ("datatype", "elements", "json", "remedy"),
    [
        ("FP32", JSON_LIMIT, True, ""),
        ("FP32", JSON_LIMIT + 1, True, "binary_data_output"),
        ("FP32", JSON_LIMIT + 1, False, ""),
        ("BYTES", STRINGS_LIMIT + 1, True, "fewer rows"),
        ("BYTES", STRINGS_LIMIT + 1, False, "fewer rows"),
    ],
)
def test_outputs_are_bounded(datatype: str, elements: int, json: bool, remedy: str) -> None:
    if not remedy:
        check_output(slot(datatype), elements, json=json)
        return
    with pytest.raises(InvalidRequest, match=remedy):
        check_output(slot(datatype), elements, json=json)


@given(st.lists(st.integers(-2, 1 << 50) | st.integers(0, 3), max_size=4), st.booleans())
def test_rows_are_bounded_by_what_a_body_holds(shape: list[int], empty_rows: bool) -> None:
    signature = replace(FREE, empty_rows=empty_rows)
    try:
        elements = check_shape(shape, signature.inputs["x"], signature, "x")
    except InvalidRequest:
        return
    assert elements == prod(shape)
    assert max(shape) <= max(elements, EMPTY_LIMIT)
