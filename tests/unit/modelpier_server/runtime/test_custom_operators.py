"""Libraries of operators beside a model: loaded where the options name them, and from the model's folder alone. The
library is a real one, that of onnxruntime-extensions under another name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.linalg import _umath_linalg

from modelpier_server import runtime
from modelpier_server.contract import FailureReason, Options
from modelpier_server.errors import ModelError
from modelpier_server.runtime import Session, extensions
from modelpier_server.runtime.graph_cache import GraphCache
from support import onnx_models

from .test_extensions import upper

LIBRARY = "ops/custom.so"
WORDS = {"x": np.array(["pier"], np.object_)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, and the library that it needs: in a domain that nobody else brings."""
    folder = tmp_path / "model"
    onnx_models.write(onnx_models.tokens(), folder / "m.onnx")
    (folder / "ops").mkdir()
    shutil.copy(extensions.library(), folder / LIBRARY)
    return folder


@pytest.fixture(params=[False, True], ids=["here", "isolated"])
def isolated(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def made() -> Iterator[list[Session]]:
    made: list[Session] = []
    yield made
    for session in made:
        session.close()


def options(*libraries: str, isolated: bool = False) -> Options:
    return Options(custom_operators=libraries, isolated=isolated, instances=1)


def refused(path: Path, wanted: Options) -> str:
    with pytest.raises(ModelError) as error:
        runtime.load(path, wanted)
    assert error.value.reason is FailureReason.MODEL_INVALID
    return str(error.value)


def test_a_named_library_brings_its_operators(folder: Path, isolated: bool, made: list[Session]) -> None:
    made.append(runtime.load(folder / "m.onnx", options(LIBRARY, isolated=isolated)))
    (answer,) = made[0].run(WORDS, ["y"])
    assert answer.tolist() == [1, 3, 2]


def test_the_folder_may_be_what_is_loaded(folder: Path) -> None:
    assert runtime.load(folder, options(LIBRARY)).run(WORDS, ["y"])


def test_it_does_for_onnxruntime_extensions_what_is_otherwise_done_unasked(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = onnx_models.write(upper(), folder / "m.onnx")
    both = refused(file, options(LIBRARY))
    assert "two libraries bring operators of one domain; name one of them in server.customOperators" in both
    monkeypatch.setattr(extensions, "wanted", lambda file: False)
    assert "StringUpper" in refused(file, options())
    (answer,) = runtime.load(file, options(LIBRARY)).run(WORDS, ["y"])
    assert answer.tolist() == ["PIER"]


def test_a_library_that_nobody_names_is_not_loaded(folder: Path, isolated: bool) -> None:
    text = refused(folder / "m.onnx", options(isolated=isolated))
    assert "BertTokenizer" in text
    assert "from the model's folder where server.customOperators (--custom-operators) names it" in text
    assert str(folder) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ops/other.so", "there is no such file"),
        ("ops/circle.so", "there is no such file"),
        ("ops/link.so", "outside of the model's folder"),
        ("../custom.so", "outside of the model's folder"),
        ("up/custom.so", "outside of the model's folder"),
        ("ops/folder.so", "no regular file"),
        ("ops/pipe.so", "no regular file"),
        ("ops/text.so", "cannot be loaded as a shared library"),
        ("ops/numpy.so", "has no RegisterCustomOps"),
    ],
)
def test_what_is_no_library_of_the_models_own_is_refused(folder: Path, isolated: bool, name: str, words: str) -> None:
    outside = folder.parent / "custom.so"
    shutil.copy(extensions.library(), outside)
    (folder / "ops/link.so").symlink_to(outside)
    (folder / "up").symlink_to("..")
    (folder / "ops/circle.so").symlink_to("circle.so")
    (folder / "ops/folder.so").mkdir()
    os.mkfifo(folder / "ops/pipe.so")
    (folder / "ops/text.so").write_text("no library at all")
    shutil.copy(_umath_linalg.__file__, folder / "ops/numpy.so")
    text = refused(folder / "m.onnx", options(LIBRARY, name, isolated=isolated))
    assert text.startswith(f"customOperators: '{name}': ")
    assert words in text
    assert str(outside) not in Path("/proc/self/maps").read_text()


def test_a_link_within_the_folder_is_followed(folder: Path) -> None:
    (folder / "link.so").symlink_to(LIBRARY)
    assert runtime.load(folder / "m.onnx", options("link.so")).run(WORDS, ["y"])


def test_a_path_with_other_bytes_needs_another_process(folder: Path, made: list[Session]) -> None:
    """The dynamic linker would give out what it has from there: code that no digest of today's covers."""
    file = folder / "m.onnx"
    runtime.load(file, options(LIBRARY)).close()
    changed = (folder / LIBRARY).read_bytes() + b"\0"
    (folder / LIBRARY).unlink()
    (folder / LIBRARY).write_bytes(changed)
    assert "use another path or server.isolated" in refused(file, options(LIBRARY))
    made.append(runtime.load(file, options(LIBRARY, isolated=True)))
    shutil.copy(folder / LIBRARY, folder / "ops/second.so")
    assert runtime.load(file, options("ops/second.so")).run(WORDS, ["y"])


AGAIN = """
import gc, sys, onnxruntime_extensions
from pathlib import Path
from modelpier_server import runtime
from modelpier_server.contract import Options
for _ in range(3):
    session = runtime.load(Path(sys.argv[1]), Options(custom_operators=(sys.argv[2],)))
    session.close()
    del session
    gc.collect()
print("alive")
"""


def test_models_come_and_go_and_the_library_stays(folder: Path) -> None:
    """This one ends the process where it is unloaded and loaded again beside the installed one."""
    command = [sys.executable, "-c", AGAIN, str(folder / "m.onnx"), LIBRARY]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stdout) == (0, "alive\n"), ran.stderr


def test_no_graph_is_kept(folder: Path, tmp_path: Path) -> None:
    graphs = GraphCache(tmp_path / "graphs", 1 << 30, lambda size: True)
    for _ in range(3):
        runtime.load(folder / "m.onnx", options(LIBRARY), digest="sha256:" + "0" * 64, graphs=graphs)
    assert not list(tmp_path.glob("graphs/**/*"))
