"""What TensorRT is told, as far as a machine without it can show."""

from __future__ import annotations

import os
from pathlib import Path

import onnxruntime as ort
import pytest

from modelpier_server.contract import Batching, Options, Provider, TensorSpec
from modelpier_server.runtime import onnx, providers
from modelpier_server.runtime.graph_cache import GraphCache
from modelpier_server.runtime.tensorrt import completed
from support import onnx_models
from support.onnx_models import write

ASKED = Provider(providers.TENSORRT, {"trt_fp16_enable": "1"})
IMAGE = TensorSpec("pixels", "FP32", (-1, 3, 224, 224))
FLAG = TensorSpec("flag", "BOOL", (1,))


def test_rows_and_caches_are_told(tmp_path: Path) -> None:
    got = completed(ASKED, [IMAGE, FLAG, TensorSpec("size", "INT64", (-1, 2))], 16, tmp_path)
    assert got.options == {
        "trt_fp16_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(tmp_path),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path),
        "trt_profile_min_shapes": "pixels:1x3x224x224,size:1x2",
        "trt_profile_opt_shapes": "pixels:16x3x224x224,size:16x2",
        "trt_profile_max_shapes": "pixels:16x3x224x224,size:16x2",
    }
    providers.check([got], [providers.TENSORRT])  # all of them are known


def test_what_the_deployment_says_stays(tmp_path: Path) -> None:
    own = {"trt_engine_cache_enable": "0", "trt_profile_opt_shapes": "pixels:4x3x224x224"}
    assert completed(Provider(providers.TENSORRT, own), [IMAGE], 16, tmp_path).options == own


def test_without_a_folder_there_is_no_cache() -> None:
    assert not [name for name in completed(ASKED, [IMAGE], 16, None).options if "cache" in name]


def test_fixed_sizes_need_no_profile() -> None:
    assert completed(ASKED, [FLAG], 16, None) == ASKED


def test_other_variable_sizes_are_for_the_user_to_say(caplog: pytest.LogCaptureFixture) -> None:
    assert completed(ASKED, [TensorSpec("ids", "INT64", (-1, -1))], 16, None) == ASKED
    assert "an engine for each new size" in caplog.text


def test_sizes_are_read_off_the_model(tmp_path: Path) -> None:
    file = write(onnx_models.mlp(), tmp_path / "m.onnx")
    settings = ort.SessionOptions()
    level = settings.graph_optimization_level
    options = Options(providers=(ASKED, Provider(providers.CUDA)), batching=Batching(max_rows=8))
    got = onnx._for_tensorrt(file, settings, options, None)
    assert got.providers[0].options["trt_profile_max_shapes"] == "x:8x32"
    assert got.providers[1:] == options.providers[1:]
    assert settings.graph_optimization_level == level


def test_a_model_for_gpus_alone_has_no_profile(tmp_path: Path) -> None:
    file = write(b"no model", tmp_path / "m.onnx")
    assert onnx._for_tensorrt(file, ort.SessionOptions(), Options(providers=(ASKED,)), None).providers == (ASKED,)


def test_engines_of_models_unused_for_longest_go_first(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path, 100, lambda _size: True)
    places = [cache.engines(f"sha256:{number}") for number in range(3)]
    for age, place in enumerate(places):
        assert place is not None
        (place / "engine").write_bytes(bytes(40))
        os.utime(place, (1000 - age, 1000 - age))
    again = cache.engines("sha256:2")
    assert again == places[2]
    assert [place.exists() for place in places if place is not None] == [True, False, True]


def test_no_folder_no_engines(tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("a file")
    assert GraphCache(tmp_path, 100, lambda _size: True).engines("sha256:1") is None
