"""Operators of onnxruntime-extensions: there for the models that import them, and for no others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper

from modelpier_server import runtime
from modelpier_server.contract import FailureReason, Options
from modelpier_server.errors import ModelError
from modelpier_server.runtime import extensions
from support import onnx_models
from support.onnx_models import write

TEXTS = [("x", "BYTES", ("n",))]


def upper(domain: str = "ai.onnx.contrib", imports: Sequence[str] = ()) -> bytes:
    """y = x in capitals."""
    node = helper.make_node("StringUpper", ["x"], ["y"], domain=domain)
    model = onnx_models.build_proto([node], TEXTS, [("y", "BYTES", ("n",))])
    model.opset_import.extend(helper.make_opsetid(name, 1) for name in imports or (domain,))
    return bytes(model.SerializeToString())


def test_a_model_with_extensions_runs(tmp_path: Path) -> None:
    session = runtime.load(write(upper(), tmp_path / "m.onnx"), Options())
    (answer,) = session.run({"x": np.array(["pier", ""], np.object_)}, ["y"])
    assert answer.tolist() == ["PIER", ""]


@pytest.mark.parametrize("domain", ["com.example", "ai.onnx.contrib2", "ai.onnx"])
def test_other_operators_stay_unknown(tmp_path: Path, domain: str) -> None:
    file = write(upper(domain), tmp_path / "m.onnx")
    assert not extensions.wanted(file)
    with pytest.raises(ModelError, match="StringUpper") as error:
        runtime.load(file, Options())
    assert error.value.reason is FailureReason.MODEL_INVALID


def test_the_library_is_registered_on_demand_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    assert runtime.load(write(onnx_models.identity(), tmp_path / "plain.onnx"), Options())
    with pytest.raises(ModelError, match="onnxruntime-extensions must be installed") as error:
        runtime.load(write(upper(), tmp_path / "m.onnx"), Options())
    assert error.value.reason is FailureReason.MODEL_INVALID


def test_fields_around_the_import_are_stepped_over(tmp_path: Path) -> None:
    model = ModelProto.FromString(upper())
    model.producer_name = "ai.onnx.contrib"
    model.graph.doc_string = "ai.onnx.contrib" * 1000
    helper.set_model_props(model, {"domain": "ai.onnx.contrib"})
    assert extensions.wanted(write(model.SerializeToString(), tmp_path / "m.onnx"))
    del model.opset_import[1:]
    assert not extensions.wanted(write(model.SerializeToString(), tmp_path / "m.onnx"))


@pytest.mark.parametrize("domains", [("", "ai.onnx.contrib"), ("ai.onnx.contrib", "com.microsoft")])
def test_any_place_among_the_imports(tmp_path: Path, domains: tuple[str, ...]) -> None:
    assert extensions.wanted(write(upper(imports=domains), tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    "content",
    [b"", b"no model at all", b"\xff" * 30, b"\x42", b"\x42\xff\xff\xff\xff\x0f", b"\x43\x44", upper()[:-3], b"\x08"],
)
def test_what_is_no_model_is_left_to_onnx_runtime(tmp_path: Path, content: bytes) -> None:
    file = write(content, tmp_path / "m.onnx")
    assert not extensions.wanted(file)
    with pytest.raises(ModelError) as error:
        runtime.load(file, Options())
    assert error.value.reason is FailureReason.MODEL_INVALID


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert not extensions.wanted(tmp_path / "m.onnx")


@pytest.mark.parametrize("filler", [b"\0", b"\x08\x01"], ids=["zeros", "small fields without end"])
def test_a_large_file_that_is_no_model_is_given_up_early(tmp_path: Path, filler: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(filler * (1 << 25))
    with file.open("rb") as source, pytest.raises(ValueError, match=r"without a number|more fields"):
        extensions._fields(source, file.stat().st_size, 8)
    assert not extensions.wanted(file)
