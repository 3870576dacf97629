"""What is found out about batches before a model serves."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from modelpier_server import runtime
from modelpier_server.contract import Batching, FailureReason, Options
from modelpier_server.errors import ModelError, OutOfMemory
from modelpier_server.protocol.datatypes import DATATYPES
from modelpier_server.scheduler import probe as probing
from modelpier_server.scheduler.probe import Finding, axis_objection, probe
from support import onnx_models
from support.onnx_models import build, build_proto, write
from support.sessions import Wrapped


def found(model: bytes, folder: Path, batching: Batching | None = None) -> Finding:
    return probe(runtime.load(write(model, folder / "m.onnx"), Options()), batching or Batching())


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "FP16", "BF16", "INT64", "UINT8", "BOOL", "BYTES"])
def test_rows_that_do_not_know_each_other_are_batched(tmp_path: Path, datatype: str) -> None:
    finding = found(onnx_models.identity(datatype), tmp_path)
    assert not finding.why.startswith("off: output")
    assert "fails" not in finding.why
    assert "synthetic" not in finding.why


def test_a_tabular_model_gains_from_batches(tmp_path: Path) -> None:
    finding = found(onnx_models.mlp(), tmp_path)
    assert finding.max_rows > 1
    assert finding.why.startswith("on: up to")
    assert len(finding.costs) > 3


def test_the_limit_is_kept(tmp_path: Path) -> None:
    assert found(onnx_models.mlp(), tmp_path, Batching(max_rows=5)).max_rows <= 5
    assert found(onnx_models.mlp(), tmp_path, Batching(max_rows=1)).max_rows == 0


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (onnx_models.cumsum_rows(), "depends on the other rows"),
        (onnx_models.mean_of_all(), "'y' has no axes"),
        (onnx_models.identity(shape=(1, 3)), "the first size of 'x' is fixed"),
        (onnx_models.identity(shape=()), "'x' has no axes"),
    ],
)
def test_what_must_not_be_batched(tmp_path: Path, model: bytes, text: str) -> None:
    finding = found(model, tmp_path)
    assert finding.max_rows == 0
    assert text in finding.why


def beyond_a_threshold(datatype: str, extreme: str, threshold: float) -> bytes:
    """Adds the largest (smallest) value of all rows, once it is beyond the threshold."""
    dtype = DATATYPES[datatype].numpy
    constants = [
        numpy_helper.from_array(np.array(threshold, dtype), "threshold"),
        numpy_helper.from_array(np.array(0, dtype), "nothing"),
    ]
    nodes = [
        helper.make_node(f"Reduce{extreme}", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater" if extreme == "Max" else "Less", ["m", "threshold"], ["beyond"]),
        helper.make_node("Where", ["beyond", "m", "nothing"], ["more"]),
        helper.make_node("Add", ["x", "more"], ["y"]),
    ]
    return build(nodes, [("x", datatype, ("n", 3))], [("y", datatype, ("n", 3))], constants)


@pytest.mark.parametrize(
    ("datatype", "extreme", "threshold"),
    [("INT64", "Max", 1), ("INT64", "Min", -1), ("INT8", "Max", 99), ("FP32", "Max", 100), ("FP64", "Min", -100)],
)
def test_rows_that_know_each_other_beyond_a_threshold_only(
    tmp_path: Path, datatype: str, extreme: str, threshold: float
) -> None:
    finding = found(beyond_a_threshold(datatype, extreme, threshold), tmp_path)
    assert finding.max_rows == 0
    assert finding.why == "off: output 'y' of a row depends on the other rows"


def test_strings_whose_lengths_know_each_other(tmp_path: Path) -> None:
    """As tokenizers do that pad to the longest text: the second size depends on all rows."""
    nodes = [
        helper.make_node("StringSplit", ["x"], ["y", "counts"], delimiter=" "),
    ]
    model = build_proto(nodes, [("x", "BYTES", ("n",))], [("y", "BYTES", ("n", "words"))])
    model.opset_import[0].version = 20
    assert "depends on the other rows" in found(model.SerializeToString(), tmp_path).why


def test_whole_numbers_may_be_indices(tmp_path: Path) -> None:
    """Rows beside the one that is looked at have larger ones, as far as the model takes them."""
    for rows in (3, 10, 2000):
        assert "output" not in found(onnx_models.gather(rows), tmp_path).why


def test_devices_that_check_no_index_get_no_large_ones(tmp_path: Path) -> None:
    class Device(Scripted):
        provider = "CUDAExecutionProvider"
        largest = 0

        def run(
            self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], control: runtime.Control | None = None
        ) -> list[np.ndarray]:
            self.largest = max(self.largest, *(int(np.abs(array).max()) for array in feeds.values()))
            return super().run(feeds, outputs, control)

    session = Device(runtime.load(write(onnx_models.identity("INT64"), tmp_path / "m.onnx"), Options()))
    probe(session, Batching())
    assert session.largest == 1


def test_an_output_that_has_other_rows_than_its_input(tmp_path: Path) -> None:
    """The shape that the model declares says otherwise."""
    finding = found(onnx_models.reshape_poison(), tmp_path)
    assert finding.max_rows == 0
    assert finding.why == "off: output 'y' has not one row per row of input"


def test_unnamed_first_sizes_may_be_the_batch(tmp_path: Path) -> None:
    session = runtime.load(write(onnx_models.identity(shape=(None, 3)), tmp_path / "m.onnx"), Options())
    assert axis_objection(session) == ""


def test_first_sizes_of_different_names_are_not(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["k"], ["z"])]
    model = build(
        nodes,
        [("x", "FP32", ("n", 3)), ("k", "FP32", ("m", 3))],
        [("y", "FP32", ("n", 3)), ("z", "FP32", ("m", 3))],
    )
    assert "different names: m, n" in found(model, tmp_path).why


def test_a_model_that_refuses_synthetic_inputs_still_serves(tmp_path: Path) -> None:
    """Its second size must be a multiple of 11, and nothing says so."""
    shape = numpy_helper.from_array(np.array([-1, 11], np.int64), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    finding = found(build([node], [("x", "FP32", ("n", "d"))], [("y", "FP32", ("n", "d"))], [shape]), tmp_path)
    assert finding.max_rows == 0
    assert "no synthetic input could be run" in finding.why


class Scripted(Wrapped):
    """A session whose runs take as long, or fail, as the test says."""

    def __init__(self, session: runtime.Session, error: Exception | None = None, seconds: float = 0.0) -> None:
        super().__init__(session)
        self._error, self._seconds = error, seconds
        self.runs = 0

    def run(
        self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], control: runtime.Control | None = None
    ) -> list[np.ndarray]:
        self.runs += 1
        if self._error is not None:
            raise self._error
        time.sleep(self._seconds)
        return super().run(feeds, outputs, control)


def scripted(folder: Path, **how: Any) -> Scripted:
    return Scripted(runtime.load(write(onnx_models.identity(), folder / "m.onnx"), Options()), **how)


def test_a_model_that_does_not_fit_the_memory_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        probe(scripted(tmp_path, error=OutOfMemory("failed to allocate")), Batching())
    assert error.value.reason is FailureReason.OUT_OF_MEMORY


def test_no_more_rows_are_tried_once_they_bring_nothing(tmp_path: Path) -> None:
    """Each row takes 10 ms: 4 rows show it, 16 and 64 would only delay the start."""

    class Linear(Scripted):
        def run(
            self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], control: runtime.Control | None = None
        ) -> list[np.ndarray]:
            self._seconds = 0.01 * len(next(iter(feeds.values())))
            return super().run(feeds, outputs, control)

    session = Linear(runtime.load(write(onnx_models.identity(), tmp_path / "m.onnx"), Options()))
    finding = probe(session, Batching())
    assert finding.max_rows == 0
    assert "bring no more rows" in finding.why
    assert session.runs <= 1 + 4 + 4 + 2 + 2


class Costly(Scripted):
    """A run takes `fixed` seconds, or `row` for each row where that is more: more rows bring more up to fixed / row.
    They pass on a clock of its own.
    """

    fixed, row, now = 0.032, 0.001, 0.0

    def run(
        self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], control: runtime.Control | None = None
    ) -> list[np.ndarray]:
        rows = len(next(iter(feeds.values())))
        self.now += max(self.fixed, self.row * rows)
        return super().run(feeds, outputs, control)


@pytest.mark.parametrize(("row", "limit", "rows"), [(0.001, 64, 32), (0.002, 64, 16), (0.0005, 64, 64), (0.001, 6, 6)])
def test_the_fewest_rows_that_are_fast_are_found_in_few_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: float, limit: int, rows: int
) -> None:
    session = Costly(runtime.load(write(onnx_models.identity(), tmp_path / "m.onnx"), Options()))
    session.row = row
    monkeypatch.setattr(probing, "time", SimpleNamespace(perf_counter=lambda: session.now))
    assert probe(session, Batching(max_rows=limit)).max_rows == rows
    assert session.runs <= 1 + 2 + 4 + 2 + 2 * 4


def test_slow_models_are_not_run_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "SLOWEST", 0.01)
    monkeypatch.setattr(probing, "RUN_LIMIT", 0.005)
    session = scripted(tmp_path, seconds=0.02)
    assert "one row takes" in probe(session, Batching()).why
    assert session.runs == 2
