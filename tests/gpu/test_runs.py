"""Runs on a GPU: what they answer is what a CPU answers, captured or not, in this process or another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from modelpier_server import runtime
from modelpier_server.contract import FailureReason, Options, Provider
from modelpier_server.errors import Cancelled, ModelError, OutOfMemory
from modelpier_server.runtime import Session, onnx
from modelpier_server.runtime.graph_cache import GraphCache
from modelpier_server.runtime.onnx import OrtSession
from modelpier_server.runtime.providers import CUDA
from modelpier_server.runtime.session import Control, Joined
from support import onnx_models
from support.onnx_models import write

GRAPHS = {"enable_cuda_graph": "1", "use_tf32": "0"}
EAGER = {"use_tf32": "0"}
"""TF32 has 10 bits of a mantissa: a comparison with a CPU would compare that."""


@contextmanager
def loaded(path: Path, options: dict[str, str], *, isolated: bool = False) -> Iterator[Session]:
    session = runtime.load(path, Options(providers=(Provider(CUDA, options),), isolated=isolated))
    try:
        yield session
    finally:
        session.close()


def reference(
    path: Path, feeds: dict[str, npt.NDArray[np.float32]], outputs: list[str]
) -> list[npt.NDArray[np.float32]]:
    session = runtime.load(path, Options())
    try:
        return session.run(feeds, outputs)
    finally:
        session.close()


def x(rows: int, width: int = 32, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    return {"x": np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)}


@pytest.mark.parametrize("isolated", [False, True], ids=["here", "isolated"])
@pytest.mark.parametrize("make", [onnx_models.mlp, onnx_models.slow], ids=["mlp", "slow"])
def test_answers_are_those_of_a_cpu(tmp_path: Path, make: Callable[[], bytes], isolated: bool) -> None:
    path = write(make(), tmp_path / "m.onnx")
    with loaded(path, EAGER, isolated=isolated) as session:
        assert session.provider == CUDA
        feeds = x(17, session.inputs[0].shape[1])
        assert np.allclose(session.run(feeds, ["y"])[0], reference(path, feeds, ["y"])[0], atol=1e-4)


@pytest.mark.parametrize("isolated", [False, True], ids=["here", "isolated"])
def test_captured_runs_of_every_number_of_rows(tmp_path: Path, isolated: bool) -> None:
    path = write(onnx_models.mlp(), tmp_path / "m.onnx")
    with loaded(path, GRAPHS, isolated=isolated) as session:
        session.prepare(12)
        for rows in range(1, 15):  # more than 12 run eagerly
            for seed in range(3):
                feeds = x(rows, seed=seed)
                assert np.allclose(session.run(feeds, ["y"])[0], reference(path, feeds, ["y"])[0], atol=1e-4), rows


def test_the_memory_of_captured_runs_is_pinned(tmp_path: Path) -> None:
    with loaded(write(onnx_models.mlp(), tmp_path / "m.onnx"), GRAPHS) as session:
        session.prepare(4)
        assert isinstance(session, OrtSession)
        assert session._captured is not None
        buffers = [
            b for bucket in session._captured._buckets for b in (*bucket.inputs.values(), *bucket.outputs.values())
        ]
        assert buffers
        assert all(buffer.pinned is not None for buffer in buffers)
        assert all(buffer.value.device_name() == "cuda" for buffer in buffers)


def test_captured_results_stay_when_the_memory_is_used_again(tmp_path: Path) -> None:
    with loaded(write(onnx_models.mlp(), tmp_path / "m.onnx"), GRAPHS) as session:
        session.prepare(4)
        first = session.run(x(3), ["y"])[0]
        kept = first.copy()
        session.run(x(4, seed=1), ["y"])
        assert np.array_equal(first, kept)


def test_captured_runs_of_several_threads(tmp_path: Path) -> None:
    path = write(onnx_models.mlp(), tmp_path / "m.onnx")
    start = threading.Barrier(4)
    with loaded(path, GRAPHS) as session:
        session.prepare(8)

        def work(seed: int) -> bool:
            feeds = x(1 + seed % 8, seed=seed)
            expected = reference(path, feeds, ["y"])[0]
            start.wait(30)
            return all(np.allclose(session.run(feeds, ["y"])[0], expected, atol=1e-4) for _ in range(200))

        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(work, range(4)))


def test_requests_are_put_together_in_pinned_memory(tmp_path: Path) -> None:
    """Large ones, too: one that fills its bucket alone is copied by the driver."""
    path = write(onnx_models.mlp((300_000, 4)), tmp_path / "m.onnx")
    with loaded(path, GRAPHS) as session:
        session.prepare(4)
        assert session.joins
        for sizes in ([1, 2], [4], [1], [3]):
            parts = [x(rows, 300_000, seed)["x"] for seed, rows in enumerate(sizes)]
            got = session.run(Joined({"x": parts}), ["y"])[0]
            assert np.allclose(got, reference(path, {"x": np.concatenate(parts)}, ["y"])[0], rtol=1e-3, atol=1e-2)


def test_integers_and_several_inputs_are_captured(tmp_path: Path) -> None:
    with loaded(write(onnx_models.add("INT64"), tmp_path / "m.onnx"), GRAPHS) as session:
        session.prepare(4)
        a = np.arange(9, dtype=np.int64).reshape(3, 3)
        total, difference = session.run({"a": a, "b": a[::-1]}, ["sum", "difference"])
        assert np.array_equal(total, a + a[::-1])
        assert np.array_equal(difference, a - a[::-1])


def test_a_model_that_cannot_be_captured_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as raised, loaded(write(onnx_models.counting(), tmp_path / "m.onnx"), GRAPHS):
        pass
    assert raised.value.reason is FailureReason.MODEL_INVALID
    assert "graph" in str(raised.value).lower()


def test_an_unknown_device_is_no_cpu(tmp_path: Path) -> None:
    with pytest.raises(ModelError), loaded(write(onnx_models.mlp(), tmp_path / "m.onnx"), {"device_id": "77"}):
        pass


def test_a_graph_that_is_kept_runs_on_the_gpu_again(tmp_path: Path) -> None:
    path = write(onnx_models.mlp((32, 512, 512, 4)), tmp_path / "model" / "m.onnx")
    options = Options(providers=(Provider(CUDA, EAGER),))
    feeds = x(5)
    expected = reference(path, feeds, ["y"])[0]
    graphs = GraphCache(tmp_path / "graphs", 1 << 30, lambda _size: True)
    for _ in range(2):
        session = onnx.load(path, options, "sha256:" + "0" * 64, graphs)
        assert session.provider == CUDA
        assert np.allclose(session.run(feeds, ["y"])[0], expected, atol=1e-4)
        session.close()


def test_a_limit_on_memory_is_one(tmp_path: Path) -> None:
    """What is over it fails by itself, and those after it do not."""
    path = write(onnx_models.mlp((32, 4096, 4)), tmp_path / "m.onnx")
    with loaded(path, {**EAGER, "gpu_mem_limit": str(64 << 20)}) as session:
        assert session.run(x(8), ["y"])[0].shape == (8, 4)
        with pytest.raises(OutOfMemory):
            session.run(x(100_000), ["y"])  # 1.6 GB in between
        assert session.run(x(8), ["y"])[0].shape == (8, 4)


def test_a_run_is_ended_from_outside(tmp_path: Path) -> None:
    control = Control()
    with loaded(write(onnx_models.counting(), tmp_path / "m.onnx"), EAGER) as session:
        timer = threading.Timer(0.5, control.abort)
        timer.start()
        feeds: dict[str, npt.NDArray[Any]] = {"x": np.zeros((1, 3), np.float32), "k": np.array([1 << 60], np.int64)}
        with pytest.raises(Cancelled):
            session.run(feeds, ["y"], control)
        timer.join()
