"""A sentence encoder from torch, converted in an environment of its own and served by the real server."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sentences.convert import PYTHON, ROOT, Converted, ConverterError, convert, package_folder
from sentences.demo import LIMIT, SENTENCES
from support.server_process import ServerProcess, server

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
MORE = ("Привет, Ёжик!", "漢字かな交じり文", "great🙂", "word " * 400, "")


@pytest.fixture(scope="module")
def folder() -> Path:
    """Of the real model."""
    if not PYTHON.exists():
        pytest.skip("the converter's environment is not there: run `make venv-convert` (about 6 GB)")
    return package_folder(PYTHON)


@pytest.fixture(scope="module")
def minilm(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert(tmp_path_factory.mktemp("minilm") / "model.onnx", (*SENTENCES, *MORE))


@pytest.fixture(scope="module")
def served(minilm: Converted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with server(tmp_path_factory.mktemp("server"), "--model", f"minilm={minilm.path}") as process:
        process.wait_ready()
        yield process


def run(*args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "model_converter")}
    return subprocess.run(
        [str(PYTHON), *args], env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def plain(process: ServerProcess, *sentences: str) -> np.ndarray:
    body = json.dumps({"model_name": "minilm", "input_data": sentences}).encode()
    status, answer = process.call("POST", "/model", body)
    assert status == 200, answer
    return np.array(json.loads(answer)["output_data"], np.float32)


def test_the_converted_model_answers_as_torch_does(minilm: Converted) -> None:
    assert minilm.max_length == 256
    assert minilm.sentences > 30
    assert 0 < minilm.largest_difference < LIMIT
    assert 80e6 < minilm.bytes < 100e6
    assert str(ROOT).encode() not in minilm.path.read_bytes(), "paths of this machine are in the file"


def test_the_served_model_answers_as_torch_does(minilm: Converted, served: ServerProcess) -> None:
    expected = np.array(minilm.embeddings, np.float32)
    assert np.abs(plain(served, *SENTENCES, *MORE) - expected).max() < LIMIT
    tensor = {"name": "sentences", "shape": [3], "datatype": "BYTES", "data": SENTENCES}
    status, answer = served.call("POST", "/v2/models/minilm/infer", json.dumps({"inputs": [tensor]}).encode())
    assert status == 200, answer
    (output,) = json.loads(answer)["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("embeddings", "FP32", [3, 384])
    assert np.abs(np.array(output["data"], np.float32).reshape(3, 384) - expected[:3]).max() < LIMIT


def test_what_means_the_same_is_alike(served: ServerProcess) -> None:
    boats, ship, revenue = plain(served, *SENTENCES)
    assert boats @ ship > 0.4
    assert boats @ revenue < 0.2


def test_requests_that_share_a_run_get_their_own_answers(minilm: Converted, served: ServerProcess) -> None:
    sentences = [*SENTENCES, *MORE] * 8
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda sentence: plain(served, sentence)[0], sentences))
    expected = np.tile(np.array(minilm.embeddings, np.float32), (8, 1))
    assert np.abs(np.stack(answers) - expected).max() < LIMIT


def test_texts_of_all_scripts_get_the_originals_tokens(folder: Path) -> None:
    done = run(str(HERE / "compare_tokens.py"), str(folder))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["compared"] > 4000
    assert result["different"] == []


@pytest.fixture(scope="module")
def small(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("small")
    done = run(str(HERE / "make_encoder.py"), str(made))
    assert done.returncode == 0, done.stderr
    return made


def test_a_cased_encoder_with_another_pooling(small: Path, tmp_path: Path) -> None:
    done = run("-m", "modelpier_converter", "sentence-encoder", str(small), "-o", str(tmp_path / "out" / "model.onnx"))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["max_length"] == 32
    assert report["compared"]["relative_error"] < LIMIT
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"]


def test_a_source_that_cannot_be_converted_leaves_nothing_behind(small: Path, tmp_path: Path) -> None:
    for name in small.iterdir():
        if name.name != "modules.json":
            (tmp_path / name.name).symlink_to(name)
    out = tmp_path / "out" / "model.onnx"
    done = run("-m", "modelpier_converter", "sentence-encoder", str(tmp_path), "-o", str(out))
    assert done.returncode == 1
    assert done.stderr.startswith("modelpier-converter: modules.json is missing")
    assert "Traceback" not in done.stderr
    assert not out.parent.exists()


def test_an_environment_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="run `make venv-convert`"):
        convert(tmp_path / "m.onnx", SENTENCES, tmp_path / "python")
