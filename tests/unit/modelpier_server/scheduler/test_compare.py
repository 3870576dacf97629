"""Differences of tensors, against numpy's plain formulas."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelpier_server.scheduler import compare as module
from modelpier_server.scheduler.compare import compare

shapes = arrays.array_shapes(min_dims=1, max_dims=3, max_side=5)
ordinary = st.floats(-1e3, 1e3, width=32)
any_float = st.floats(width=64)


@st.composite
def pairs(draw: st.DrawFn, elements: st.SearchStrategy[float], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(shapes)
    return draw(arrays.arrays(dtype, shape, elements=elements)), draw(arrays.arrays(dtype, shape, elements=elements))


@given(pairs(ordinary, np.float32))
def test_floats_as_numpy_has_it(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    found = compare(a, b)
    x, y = a.astype(np.float64), b.astype(np.float64)
    difference, largest = np.abs(x - y), np.maximum(np.abs(x), np.abs(y))
    assert found.elements == found.floats == a.size
    assert found.equal == np.count_nonzero(a == b)
    assert found.max_absolute == difference.max()
    assert found.sum_absolute == pytest.approx(difference.sum())
    assert found.max_relative == pytest.approx((difference / np.where(largest > 0, largest, 1)).max())
    rows = a.shape[0] if a.ndim > 1 else 1
    cosines: list[float] = []
    measurable = True
    for left, right in zip(x.reshape(rows, -1), y.reshape(rows, -1), strict=True):
        lengths = np.linalg.norm(left) * np.linalg.norm(right)
        both = not left.any() and not right.any()
        measurable = measurable and (both or float(lengths) > 1e-200)
        cosines.append(1.0 if both else float(left @ right) / max(float(lengths), 1e-200))
    assert found.rows == rows
    if measurable:
        assert found.least_cosine == pytest.approx(min(cosines), abs=1e-9)
        assert found.sum_cosine == pytest.approx(sum(cosines), abs=1e-9)
    if a.ndim > 1 and a.shape[-1] > 1:
        assert found.top1_rows == a.size // a.shape[-1]
        assert found.top1_agreed == np.count_nonzero(a.argmax(-1) == b.argmax(-1))
    else:
        assert found.top1_rows == 0


@given(pairs(any_float, np.float64))
def test_every_float_has_a_finite_difference(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    found = compare(a, b)
    measures = (found.max_absolute, found.sum_absolute, found.max_relative, found.least_cosine, found.sum_cosine)
    assert all(np.isfinite(measures))
    assert 0 <= found.max_relative <= 2
    assert -1 <= found.least_cosine <= 1
    assert found.equal + found.nonfinite <= found.elements
    same = compare(a, a.copy())
    assert (same.equal, same.nonfinite, same.max_absolute, same.max_relative) == (a.size, 0, 0, 0)
    assert same.least_cosine == pytest.approx(1.0)
    assert same.top1_agreed == same.top1_rows


def test_nan_equals_nan_and_nothing_else() -> None:
    nan, inf = np.nan, np.inf
    found = compare(np.array([[nan, nan, inf, inf, -inf, 1.0]]), np.array([[nan, 0.0, inf, -inf, 2.0, 1.5]]))
    assert (found.equal, found.nonfinite, found.floats, found.max_absolute) == (2, 3, 1, 0.5)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_every_float_type(dtype: Any) -> None:
    found = compare(np.array([[1, 2], [4, 3]], dtype), np.array([[1, 2.5], [4, 3]], dtype))
    assert (found.max_absolute, found.equal) == (0.5, 3)
    assert found.max_relative == pytest.approx(0.2)
    assert (found.top1_rows, found.top1_agreed) == (2, 2)


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (np.array([1, 2, 3]), np.array([1, 0, 3]), 2),
        (np.array([[True, False]]), np.array([[True, True]]), 1),
        (np.array(["a", "b", ""], object), np.array(["a", "c", ""], object), 2),
        (np.array(7, np.uint8), np.array(7, np.uint8), 1),
    ],
)
def test_others_are_equal_or_not(a: np.ndarray, b: np.ndarray, equal: int) -> None:
    found = compare(a, b)
    assert (found.elements, found.equal, found.rows, found.top1_rows) == (a.size, equal, 0, 0)


def test_nothing_to_compare() -> None:
    assert compare(np.empty((0, 3), np.float32), np.empty((0, 3), np.float32)).elements == 0


@pytest.mark.parametrize("block", [1, 7, 64, 10_000])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(37, 3, 4)), random.normal(size=(37, 3, 4))
    whole = compare(a, b).report("y")
    monkeypatch.setattr(module, "BLOCK", block)
    found = compare(a, b).report("y")
    assert found.mean_absolute == pytest.approx(whole.mean_absolute)
    assert found.mean_cosine == pytest.approx(whole.mean_cosine)
    assert (found.rows, found.top1_agreed, found.max_absolute) == (37, whole.top1_agreed, whole.max_absolute)
