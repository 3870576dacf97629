"""No converted model is handed out that was not run against the original."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelpier_converter.errors import VerificationError
from modelpier_converter.sentences import BATCHES
from modelpier_converter.verify import Embeddings, compare, open_model


def lengths(sentences: Sequence[str]) -> Embeddings:
    """Stands for a model: what is compared does not matter here."""
    return np.array([[len(sentence), 1] for sentence in sentences], np.float32)


def test_the_same_answers() -> None:
    found = compare(lengths, lengths, [("a", "bcd"), ("",)])
    assert (found.sentences, found.largest_difference, found.relative_error) == (3, 0.0, 0.0)


def test_the_largest_difference_is_told() -> None:
    found = compare(lambda batch: lengths(batch) + np.float32(1e-5), lengths, [("abcd",), ("abcdefgh", "i")])
    assert found.largest_difference == pytest.approx(1e-5, rel=0.1)
    assert found.relative_error == pytest.approx(1e-5 / 4, rel=0.1)


@pytest.mark.parametrize("wrong", [1e-3, np.nan, np.inf])
def test_a_wrong_answer(wrong: float) -> None:
    def converted(batch: Sequence[str]) -> Embeddings:
        return lengths(batch) + np.float32(wrong if "odd" in batch else 0)

    with pytest.raises(VerificationError, match=r"differs from the original for 'odd'.*relative error"):
        compare(converted, lengths, [("fine",), ("odd",)])


def test_a_wrong_shape() -> None:
    with pytest.raises(VerificationError, match=r"shape \(1, 2\) instead of \(2, 2\)"):
        compare(lambda batch: lengths(batch[:1]), lengths, [("a", "b")])


def test_a_graph_that_onnx_runtime_refuses(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    nodes = [helper.make_node(operator, ["x"], ["y"]) for operator in ("Identity", "Neg")]
    model = helper.make_model(helper.make_graph(nodes, "twice", ends[:1], ends[1:]), ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(VerificationError, match=r"ONNX Runtime refuses the converted model: .*Duplicate definition"):
        open_model(tmp_path / "m.onnx")


def test_batches_differ_in_rows_and_lengths() -> None:
    assert len({len(batch) for batch in BATCHES}) > 2
    longest = max(len(sentence) for batch in BATCHES for sentence in batch)
    assert longest > 10 * max(len(sentence) for sentence in BATCHES[0])
