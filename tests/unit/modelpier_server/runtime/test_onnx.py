"""Files to sessions, arrays to arrays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import helper

from modelpier_server import runtime
from modelpier_server.contract import FailureReason, GraphOptimization, Options, Provider, TensorSpec
from modelpier_server.errors import InferenceFailed, InvalidRequest, ModelError
from modelpier_server.protocol.datatypes import DATATYPES
from support import onnx_models
from support.onnx_models import build, write

WEIGHT = np.array([1, 2, 3], np.float32).tobytes()
ZEROS = {"x": np.zeros((1, 3), np.float32)}


def load(model: bytes, folder: Path, **options: Any) -> runtime.Session:
    return runtime.load(write(model, folder / "m.onnx"), Options(**options))


def refused(path: Path, **options: Any) -> ModelError:
    with pytest.raises(ModelError) as error:
        runtime.load(path, Options(**options))
    return error.value


def values(datatype: str) -> np.ndarray:
    if datatype == "BYTES":
        return np.array([["a", "", "grün"]], np.object_)
    return np.array([[0, 1, 1]]).astype(DATATYPES[datatype].numpy)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_goes_through(tmp_path: Path, datatype: str) -> None:
    session = load(onnx_models.identity(datatype), tmp_path)
    assert session.inputs == (TensorSpec("x", datatype, (-1, 3)),)
    assert session.outputs == (TensorSpec("y", datatype, (-1, 3)),)
    given = values(datatype)
    (got,) = session.run({"x": given}, ["y"])
    assert got.dtype == given.dtype
    assert np.array_equal(got, given)


def test_bfloat16_beside_others_and_empty(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=onnx_models.ELEMENT_TYPES["BF16"])
    session = load(onnx_models.build([node], [("x", "FP32", ("n", 3))], [("y", "BF16", ("n", 3))]), tmp_path)
    (got,) = session.run({"x": np.full((2, 3), 1.5, np.float32)}, ["y"])
    assert got.dtype == ml_dtypes.bfloat16
    assert got.tolist() == [[1.5] * 3] * 2
    session = load(onnx_models.identity("BF16"), tmp_path)
    assert session.run({"x": np.empty((0, 3), ml_dtypes.bfloat16)}, ["y"])[0].shape == (0, 3)


def test_symbols_are_known(tmp_path: Path) -> None:
    session = load(onnx_models.variable_length(), tmp_path)
    assert session.axes == {"ids": ("batch", "length"), "y": ("batch", "length")}
    assert session.provider == "CPUExecutionProvider"


@pytest.mark.parametrize("level", GraphOptimization)
def test_the_level_of_optimisation_is_the_one_asked_for(tmp_path: Path, level: GraphOptimization) -> None:
    session = load(onnx_models.mlp(), tmp_path, graph_optimization=level)
    found = session._session.get_session_options().graph_optimization_level  # type: ignore[attr-defined]
    assert found.name == ("ORT_DISABLE_ALL" if level is GraphOptimization.DISABLED else f"ORT_ENABLE_{level.name}")
    assert session.run({"x": np.zeros((1, 32), np.float32)}, ["y"])[0].shape == (1, 4)


def test_telemetry_is_off() -> None:
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"no model at all", "m.onnx"), (b"", "m.onnx"), (onnx_models.sequence_output(), "seq(tensor(float))")],
)
def test_what_is_no_model(tmp_path: Path, content: bytes, text: str) -> None:
    error = refused(write(content, tmp_path / "m.onnx"))
    assert error.reason is FailureReason.MODEL_INVALID
    assert text in str(error)


def test_an_operator_that_does_not_exist(tmp_path: Path) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"])
    model = onnx_models.build([node], [("x", "FP32", ("n", 3))], [("y", "FP32", ("n", 3))])
    error = refused(write(model, tmp_path / "m.onnx"))
    assert error.reason is FailureReason.MODEL_INVALID
    assert "Frobnicate" in str(error)


def test_folders(tmp_path: Path) -> None:
    assert "none" in str(refused(tmp_path))
    write(onnx_models.identity(), tmp_path / "a.onnx")
    assert runtime.load(tmp_path, Options()).run(ZEROS, ["y"])
    write(onnx_models.identity(), tmp_path / "b.onnx")
    assert "a.onnx, b.onnx" in str(refused(tmp_path))
    write(onnx_models.identity(), tmp_path / "model.onnx")
    assert runtime.load(tmp_path, Options()).run(ZEROS, ["y"])


def test_external_data_in_the_models_folder(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHT)
    session = runtime.load(onnx_models.external(tmp_path / "m.onnx", "w.bin", WEIGHT), Options())
    assert session.run(ZEROS, ["y"])[0].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("location", ["../w.bin", "{}/w.bin", "sub/../../w.bin", "link.bin"])
def test_external_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHT)
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    error = refused(onnx_models.external(folder / "m.onnx", location.format(tmp_path), WEIGHT))
    assert error.reason is FailureReason.MODEL_INVALID
    assert str(error).startswith("m.onnx: external data of tensor 'w' must be a file within the model's folder")


PLACES = ("initializer", "attribute", "branch", "branch's attribute", "function", "sparse")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["w.bin", "sub/w.bin"])
def test_external_data_may_be_of_any_tensor(tmp_path: Path, place: str, location: str) -> None:
    write(WEIGHT, tmp_path / location)
    session = runtime.load(onnx_models.external_in(place, tmp_path / "m.onnx", location, len(WEIGHT)), Options())
    assert session.run(ZEROS, ["y"])[0].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["../w.bin", "{}/w.bin", "sub/../../w.bin", "link.bin", "folder/w.bin"])
def test_external_data_elsewhere_is_refused_for_any_tensor(tmp_path: Path, place: str, location: str) -> None:
    """Weights, keys, other tenants' models: whatever a model could read it could give away."""
    (tmp_path / "w.bin").write_bytes(WEIGHT)
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    (folder / "folder").symlink_to(tmp_path)
    error = refused(onnx_models.external_in(place, folder / "m.onnx", location.format(tmp_path), len(WEIGHT)))
    assert error.reason is FailureReason.MODEL_INVALID
    assert "external data" in str(error)
    assert "must be a file within the model's folder" in str(error)
    if place != "sparse":  # ONNX Runtime does not tell
        assert "w' must" in str(error)


@pytest.mark.parametrize(
    ("provider", "text"),
    [
        (Provider("CUDAExecutionProvider"), "not in this image"),
        (Provider("MagicExecutionProvider"), "none of"),
        (Provider("CPUExecutionProvider", {"use_magic": "1"}), "unknown option 'use_magic'"),
    ],
)
def test_providers_that_cannot_be_had(tmp_path: Path, provider: Provider, text: str) -> None:
    error = refused(write(onnx_models.identity(), tmp_path / "m.onnx"), providers=(provider,))
    assert error.reason is FailureReason.PROVIDER_UNAVAILABLE
    assert text in str(error)


def test_failures_of_a_run(tmp_path: Path) -> None:
    session = load(onnx_models.gather(), tmp_path)
    with pytest.raises(InvalidRequest, match="out of data bounds"):
        session.run({"ids": np.array([[10]], np.int64)}, ["y"])
    session = load(onnx_models.reshape_poison(), tmp_path)
    with pytest.raises(InferenceFailed, match="Reshape"):
        session.run({"x": np.ones((1, 3), np.float32), "k": np.array([7], np.int64)}, ["y"])
    session.close()
    with pytest.raises(InferenceFailed, match="closed"):
        session.run({"x": np.ones((1, 3), np.float32), "k": np.array([3], np.int64)}, ["y"])


@pytest.mark.parametrize(
    ("instances", "threads", "available", "expected"),
    [(0, 0, 4, 4), (0, 2, 4, 2), (0, 8, 4, 1), (2, 0, 4, 2), (3, 1, 4, 3), (0, 0, 1, 1)],
)
def test_instances_follow_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instances: int, threads: int, available: int, expected: int
) -> None:
    monkeypatch.setattr("modelpier_server.runtime.onnx.cores", lambda: available)
    assert load(onnx_models.identity(), tmp_path, instances=instances, threads=threads).instances == expected


def test_clients_cannot_fill_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime's allocators would tell of sizes that no machine has."""
    node = helper.make_node("Expand", ["x", "sizes"], ["y"])
    model = build([node], [("x", "FP32", (1,)), ("sizes", "INT64", ("k",))], [("y", "FP32", (None, None))])
    session = load(model, tmp_path)
    capfd.readouterr()
    with pytest.raises(InferenceFailed):
        session.run({"x": np.ones(1, np.float32), "sizes": np.array([1 << 31, 1 << 31], np.int64)}, ["y"])
    assert capfd.readouterr() == ("", "")
