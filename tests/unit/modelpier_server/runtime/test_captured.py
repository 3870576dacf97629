"""Runs of fixed sizes in fixed memory, as far as a CPU can show them."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpier_server import runtime
from modelpier_server.contract import Options, Provider, TensorSpec
from modelpier_server.runtime import providers
from modelpier_server.runtime.captured import Captured, objection, sizes
from modelpier_server.runtime.onnx import OrtSession
from modelpier_server.runtime.session import Joined
from support import onnx_models
from support.onnx_models import write


def session(folder: Path, model: bytes) -> OrtSession:
    made = runtime.load(write(model, folder / "m.onnx"), Options())
    assert isinstance(made, OrtSession)
    return made


def fixed(made: OrtSession, most: int) -> Captured:
    assert made._session is not None
    buckets = Captured(made._session, (made.inputs, made.outputs))
    buckets.prepare(most)
    return buckets


def x(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(rows, 32)).astype(np.float32)}


@given(st.integers(1, 4096))
def test_sizes_end_with_the_most_and_more_than_half_of_a_bucket_is_used(most: int) -> None:
    found = sizes(most)
    assert found[0] == 1
    assert found[-1] == most
    assert all(a < b <= 2 * a for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 11, 12])
def test_results_are_those_of_a_plain_run(tmp_path: Path, rows: int) -> None:
    made = session(tmp_path, onnx_models.mlp())
    got = fixed(made, 12).run(x(rows), ["y"])
    assert got is not None
    assert got[0].shape == (rows, 4)
    assert np.allclose(got[0], made.run(x(rows), ["y"])[0], atol=1e-6)


def test_results_stay_when_the_memory_is_used_again(tmp_path: Path) -> None:
    buckets = fixed(session(tmp_path, onnx_models.mlp()), 4)
    first = buckets.run(x(3), ["y"])
    assert first is not None
    kept = first[0].copy()
    buckets.run(x(4, seed=1), ["y"])
    assert np.array_equal(first[0], kept)


def test_several_inputs_and_chosen_outputs(tmp_path: Path) -> None:
    buckets = fixed(session(tmp_path, onnx_models.add("INT64")), 4)
    a = np.arange(9, dtype=np.int64).reshape(3, 3)
    got = buckets.run({"a": a, "b": a[::-1]}, ["difference"])
    assert got is not None
    assert np.array_equal(got[0], a - a[::-1])


def test_what_fits_no_bucket_is_left_to_the_caller(tmp_path: Path) -> None:
    buckets = fixed(session(tmp_path, onnx_models.mlp()), 4)
    assert buckets.run(x(5), ["y"]) is None
    assert buckets.run(x(0), ["y"]) is None
    mixed = fixed(session(tmp_path, onnx_models.add()), 4)
    assert mixed.run({"a": np.ones((2, 3), np.float32), "b": np.ones((1, 3), np.float32)}, ["sum"]) is None


def test_requests_that_share_a_run_are_put_together_in_the_memory_itself(tmp_path: Path) -> None:
    made = session(tmp_path, onnx_models.mlp())
    parts = [x(1, seed=1)["x"], x(3, seed=2)["x"], x(1, seed=3)["x"]]
    joined = Joined({"x": parts})
    got = fixed(made, 8).run(joined, ["y"])
    assert got is not None
    assert np.allclose(got[0], made.run({"x": np.concatenate(parts)}, ["y"])[0], atol=1e-6)
    assert np.array_equal(joined["x"], np.concatenate(parts))
    assert dict(joined).keys() == {"x"}
    assert len(joined) == 1


def test_threads_take_turns(tmp_path: Path) -> None:
    made = session(tmp_path, onnx_models.mlp())
    made._graphs = True
    made.prepare(8)
    start = threading.Barrier(4)

    def work(seed: int) -> bool:
        start.wait()
        feeds = x(1 + seed % 8, seed)
        expected = np.concatenate([made.run({"x": row[None]}, ["y"])[0] for row in feeds["x"]])
        return all(np.allclose(made.run(feeds, ["y"])[0], expected, atol=1e-5) for _ in range(50))

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))


@pytest.mark.parametrize(
    ("shape", "datatype", "text"),
    [((-1, 3), "FP32", ""), ((-1, -1), "FP32", "other variable"), ((2, 3), "FP32", "other"), ((-1,), "BYTES", "BYTES")],
)
def test_what_has_no_fixed_size(shape: tuple[int, ...], datatype: str, text: str) -> None:
    found = objection([TensorSpec("x", datatype, shape)], [])
    assert text in found
    assert bool(found) is bool(text)


def test_graphs_are_captured_where_they_are_asked_for() -> None:
    def asked(name: str, **options: str) -> bool:
        return providers.captures((Provider(name, options),))

    assert asked("CUDAExecutionProvider", enable_cuda_graph="1")
    assert not asked("CUDAExecutionProvider", enable_cuda_graph="0")
    assert not asked("CUDAExecutionProvider")
    assert not asked("CPUExecutionProvider")


def test_a_session_prepares_only_then(tmp_path: Path) -> None:
    made = session(tmp_path, onnx_models.mlp())
    made.prepare(4)
    assert made._captured is None
    made._graphs = True
    made.prepare(4)
    assert made._captured is not None
    assert made.run(x(3), ["y"])[0].shape == (3, 4)
    assert made.run(x(9), ["y"])[0].shape == (9, 4)  # eagerly: no bucket is as large
    assert made.run(Joined({"x": [x(4)["x"], x(5)["x"]]}), ["y"])[0].shape == (9, 4)
    made.close()


def test_variable_lengths_are_not_captured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = session(tmp_path, onnx_models.variable_length())
    made._graphs = True
    made.prepare(4)
    assert made._captured is None
    assert "no graphs are captured" in caplog.text
