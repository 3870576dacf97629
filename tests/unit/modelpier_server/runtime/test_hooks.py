"""Python beside a model: what it is given, what it may return, whose fault an error is, and how it ends."""

from __future__ import annotations

import contextlib
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelpier_server import runtime
from modelpier_server.contract import FailureReason, Options, TensorSpec
from modelpier_server.errors import Cancelled, InferenceFailed, InvalidRequest, ModelError, ServerError
from modelpier_server.runtime import Control, Session, hooks
from support import onnx_models

Load = Callable[[str], Session]
X = np.array([[1, 2, 3]], np.float32)
WORDS = """
    import numpy as np
    INPUTS = [{"name": "words", "datatype": "BYTES", "shape": [-1]}]
    OUTPUTS = [{"name": "best", "datatype": "INT64", "shape": [-1]}]
    def preprocess(inputs):
        return {"x": np.array([[len(w), w.count("a"), 0] for w in inputs["words"]], np.float32)}
    def postprocess(outputs):
        return {"best": outputs["y"].argmax(axis=1)}
"""
ENDLESS = (
    "def preprocess(inputs):\n    while True:\n        try:\n            sum(range(9))\n        except Exception: pass"
)


@pytest.fixture(params=[False, True], ids=["here", "isolated"])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Load]:
    made: list[Session] = []

    def load(source: str) -> Session:
        model = onnx_models.write(onnx_models.identity(), tmp_path / "model.onnx")
        (tmp_path / hooks.FILE).write_text(textwrap.dedent(source))
        made.append(runtime.load(model, Options(hooks=True, isolated=request.param, instances=1)))
        return made[-1]

    yield load
    for session in made:
        session.close()


def test_callers_see_the_tensors_of_the_hooks(load: Load) -> None:
    session = load(WORDS)
    assert session.inputs == (TensorSpec("words", "BYTES", (-1,)),)
    assert session.outputs == (TensorSpec("best", "INT64", (-1,)),)
    assert (session.on_loop, session.caller_only) == (False, False)
    (best,) = session.run({"words": np.array(["banana", "aaa"], np.object_)}, ["best"], Control())
    assert best.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def preprocess(inputs):\n    inputs['x'] += 1\n    return inputs", [[2, 3, 4]]),
        ("def postprocess(outputs):\n    return {'y': outputs['y'] * 2}", [[2, 4, 6]]),
    ],
)
def test_one_hook_is_enough_and_what_it_is_given_is_its_own(load: Load, source: str, expected: object) -> None:
    session = load(source)
    given = X.copy()
    given.flags.writeable = False
    for _ in range(2):
        assert session.run({"x": given}, ["y"])[0].tolist() == expected
    assert given.tolist() == X.tolist()


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        (
            "def preprocess(i):\n    raise ValueError('no face in it')",
            InvalidRequest,
            "preprocess refuses the input: no",
        ),
        ("def preprocess(i):\n    raise KeyError('k')", InferenceFailed, "preprocess of hooks.py: KeyError: 'k'"),
        ("def preprocess(i):\n    import sys; sys.exit()", InferenceFailed, "SystemExit"),
        ("def postprocess(o):\n    raise ValueError('v')", InferenceFailed, "postprocess of hooks.py: ValueError: v"),
        (
            "def preprocess(i):\n    return None",
            InferenceFailed,
            "must return a dict with ['x'], and returned NoneType",
        ),
        ("def preprocess(i):\n    return {'z': 1}", InferenceFailed, "and returned ['z']"),
        ("def preprocess(i):\n    return {'x': [1]}", InferenceFailed, "'x' must be an array of float32, and is list"),
        ("def preprocess(i):\n    return {'x': i['x'].astype('f8')}", InferenceFailed, "and is float64"),
        ("def postprocess(o):\n    return {'y': o['y'][:, :2]}", InferenceFailed, "shape [-1, 3], and has [1, 2]"),
    ],
)
def test_errors_are_the_callers_or_the_servers(load: Load, source: str, kind: type[ServerError], words: str) -> None:
    session = load(source)
    with pytest.raises(kind) as error:
        session.run({"x": X}, ["y"], Control())
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "has neither preprocess"),
        ("x = 1 / 0", "ZeroDivisionError"),
        ("def (", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("INPUTS = [{}]\ndef preprocess(i): pass", "must be lists of"),
        ("INPUTS = [{'name': 'a', 'datatype': 'FP31', 'shape': []}]\ndef preprocess(i): pass", "FP31"),
        ("OUTPUTS = [{'name': 'a', 'datatype': 'FP32', 'shape': []}]\ndef preprocess(i): pass", "need a preprocess"),
        ("#" * (hooks.LARGEST + 1), "larger than"),
    ],
)
def test_a_file_that_cannot_be_used_keeps_the_model_from_serving(load: Load, source: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as error:
        load(source)
    assert error.value.reason is FailureReason.MODEL_INVALID


def test_a_folder_without_hooks_says_what_to_do(tmp_path: Path) -> None:
    model = onnx_models.write(onnx_models.identity(), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"no hooks.py: add it, or switch server.hooks off"):
        runtime.load(model, Options(hooks=True))


def test_a_hook_that_nobody_waits_for_ends(load: Load) -> None:
    session = load(ENDLESS + "\ndef postprocess(outputs): return outputs")
    for _ in range(3):
        control = Control()
        threading.Timer(0.1, control.abort).start()
        start = time.monotonic()
        with pytest.raises(Cancelled):
            session.run({"x": X}, ["y"], control)
        assert time.monotonic() - start < 20
        control.abort()


def test_an_end_that_comes_late_hits_nobody() -> None:
    """Thrown around the end of a call, thousands of times: the thread goes on."""
    for _ in range(3000):
        call = hooks._Call()
        ender = threading.Thread(target=call.end)
        ender.start()
        with contextlib.suppress(Cancelled):
            assert call(lambda: sum(range(300))) == sum(range(300))
        ender.join()


def test_a_run_of_the_graph_between_the_hooks_ends_too(tmp_path: Path) -> None:
    model = onnx_models.write(onnx_models.counting(), tmp_path / "model.onnx")
    (tmp_path / hooks.FILE).write_text("def preprocess(inputs): return inputs")
    session = runtime.load(model, Options(hooks=True))
    feeds: dict[str, Any] = {"x": X, "k": np.array([1 << 62])}
    for _ in range(2):
        control = Control()
        threading.Timer(0.1, control.abort).start()
        with pytest.raises(Cancelled):
            session.run(feeds, ["y"], control)


def test_time_is_bounded_where_nobody_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "CALL_LIMIT", 0.2)
    monkeypatch.setattr(hooks, "LOAD_LIMIT", 0.2)
    model = onnx_models.write(onnx_models.identity(), tmp_path / "model.onnx")
    (tmp_path / hooks.FILE).write_text("while True: pass")
    with pytest.raises(ModelError, match=r"import takes more than 0.2 s"):
        runtime.load(model, Options(hooks=True))
    (tmp_path / hooks.FILE).write_text(ENDLESS)
    session = runtime.load(model, Options(hooks=True))
    with pytest.raises(InferenceFailed, match=r"more than 0.2 s"):
        session.run({"x": X}, ["y"])
