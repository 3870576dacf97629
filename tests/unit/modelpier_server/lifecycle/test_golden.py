"""Golden tests: what is compared, and what the message of a model that fails says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modelpier_server import runtime
from modelpier_server.contract import FailureReason, GoldenTests, Options
from modelpier_server.errors import ModelError
from modelpier_server.lifecycle import examples, golden
from modelpier_server.runtime import Session
from support import onnx_models
from support.golden_models import data_set, fp32, request_file

WANTED = GoldenTests()
A, B = fp32([1, 2, 3]), fp32([10, 20, 30])


@pytest.fixture
def adding(tmp_path: Path) -> Iterator[Session]:
    yield from _loaded(tmp_path, onnx_models.add())


@pytest.fixture
def same(tmp_path: Path) -> Iterator[Session]:
    yield from _loaded(tmp_path, onnx_models.identity())


def _loaded(folder: Path, model: bytes) -> Iterator[Session]:
    session = runtime.load(onnx_models.write(model, folder / "model.onnx"), Options())
    yield session
    session.close()


def refused(session: Session, folder: Path, wanted: GoldenTests = WANTED) -> str:
    with pytest.raises(ModelError) as error:
        golden.check(session, folder, wanted)
    assert error.value.reason is FailureReason.GOLDEN_TEST_FAILED
    assert "model.tests.enabled" in str(error.value), "the remedy"
    return str(error.value)


@pytest.mark.parametrize("named", [True, False], ids=["by name", "by number"])
def test_data_sets_of_onnx_pass(adding: Session, tmp_path: Path, named: bool) -> None:
    outputs = {"sum": A + B, "difference": A - B}
    for number in range(3):
        data_set(tmp_path, {"a": A, "b": B}, outputs, number, named=named)
    assert golden.check(adding, tmp_path, WANTED) == 3


def test_only_what_is_expected_is_compared(adding: Session, tmp_path: Path) -> None:
    data_set(tmp_path, {"a": A, "b": B}, {"difference": A - B})
    assert golden.check(adding, tmp_path, WANTED) == 1


def test_a_file_of_requests_and_responses_passes(adding: Session, tmp_path: Path) -> None:
    request_file(
        tmp_path, ("plus", {"a": A, "b": B}, {"sum": A + B}), ("minus", {"b": B, "a": A}, {"difference": A - B})
    )
    assert golden.check(adding, tmp_path, WANTED) == 2


def test_a_difference_names_test_output_and_how_far_it_is(adding: Session, tmp_path: Path) -> None:
    data_set(tmp_path, {"a": A, "b": B}, {"sum": fp32([11, 22.5, 40])})
    text = refused(adding, tmp_path)
    assert "golden test 'test_data_set_0': output 'sum' differs in 2 of 3 elements" in text
    assert "by 7 at most, relatively by 0.175 at most" in text
    assert "first at [0, 1]: 22.0 in place of 22.5" in text
    assert "model.tests.absoluteTolerance" in text


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        (WANTED, False),
        (GoldenTests(absolute=0.5, relative=0), True),
        (GoldenTests(absolute=0.499, relative=0), False),
        (GoldenTests(absolute=0, relative=0.5 / 22.5 + 1e-6), True),
    ],
)
def test_tolerances_are_the_plans(adding: Session, tmp_path: Path, wanted: GoldenTests, passes: bool) -> None:
    request_file(tmp_path, ("t", {"a": A, "b": B}, {"sum": fp32([11, 22.5, 33])}))
    if passes:
        golden.check(adding, tmp_path, wanted)
    else:
        assert "golden test 't'" in refused(adding, tmp_path, wanted)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_must_be_the_same(same: Session, tmp_path: Path, value: float) -> None:
    given = fp32([1, value, 2])
    path = data_set(tmp_path, {"x": given}, {"y": given})
    assert golden.check(same, tmp_path, WANTED) == 1
    data_set(tmp_path, {"x": fp32([1, 0, 2])}, {"y": given})
    assert "differs in 1 of 3 elements" in refused(same, tmp_path)
    assert path.exists()


def test_whole_numbers_must_be_equal(tmp_path: Path) -> None:
    session = runtime.load(onnx_models.write(onnx_models.identity("INT64"), tmp_path / "model.onnx"), Options())
    given = np.array([[1, 2, 3]])
    data_set(tmp_path, {"x": given}, {"y": given})
    assert golden.check(session, tmp_path, WANTED) == 1
    data_set(tmp_path, {"x": given}, {"y": np.array([[1, 2, 4]])})
    assert "differs in 1 of 3 elements, first at [0, 2]: 3 in place of 4" in refused(session, tmp_path)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"y": fp32([1, 2])}, "has the shape [1, 3], but the test expects [1, 2]"),
        ({"y": np.array([[1, 2, 3]])}, "is float32, but the test expects int64"),
        ({}, "expects nothing"),
    ],
)
def test_what_cannot_be_compared_says_why(
    same: Session, tmp_path: Path, outputs: dict[str, np.ndarray], words: str
) -> None:
    data_set(tmp_path, {"x": A}, outputs)
    assert words in refused(same, tmp_path)


def test_files_that_fit_no_input_say_so(same: Session, tmp_path: Path) -> None:
    path = data_set(tmp_path, {"x": A}, {"y": A})
    (path / "input_1.pb").write_bytes((path / "input_0.pb").read_bytes().replace(b"x", b"z"))
    assert "input_1.pb: the model has no input 'z'" in refused(same, tmp_path)
    (path / "input_1.pb").write_bytes(b"\xff")
    assert "input_1.pb cannot be read" in refused(same, tmp_path)
    (path / "input_1.pb").unlink()
    (path / "input_0.pb").unlink()
    assert "the model takes ['x']" in refused(same, tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"tests": [{}]}', '{"tests": [{"request": {"inputs": []}}]}'])
def test_a_file_that_cannot_be_read_says_why(same: Session, tmp_path: Path, text: str) -> None:
    (tmp_path / examples.FILE).write_text(text)
    assert examples.FILE in refused(same, tmp_path)


def test_a_response_must_be_the_models(same: Session, tmp_path: Path) -> None:
    request_file(tmp_path, ("", {"x": A}, {"z": A}))
    assert "golden test 'tests.json[0]': response output 'z'" in refused(same, tmp_path)


def test_a_run_that_fails_is_a_test_that_fails(tmp_path: Path) -> None:
    session = runtime.load(onnx_models.write(onnx_models.gather(rows=10), tmp_path / "model.onnx"), Options())
    data_set(tmp_path, {"ids": np.array([[99]])}, {"y": fp32([[0, 0]])})
    assert "the run failed" in refused(session, tmp_path)


@pytest.mark.parametrize("isolated", [False, True])
def test_tests_that_take_too_long_end(tmp_path: Path, isolated: bool) -> None:
    path = onnx_models.write(onnx_models.counting(), tmp_path / "model.onnx")
    session = runtime.load(path, Options(isolated=isolated))
    data_set(tmp_path, {"x": A, "k": np.array([1 << 62])}, {"y": A})
    with pytest.raises(ModelError, match="not finished") as error:
        golden.check(session, tmp_path, WANTED, limit=0.2)
    assert error.value.reason is FailureReason.GOLDEN_TEST_FAILED
    session.close()


def test_number_and_size_are_bounded(same: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "MOST_TESTS", 2)
    request_file(tmp_path, ("a", {"x": A}, {"y": A}), ("b", {"x": A}, {"y": A}))
    assert golden.check(same, tmp_path, WANTED) == 2
    data_set(tmp_path, {"x": A}, {"y": A})
    assert "only 2 tests are run" in refused(same, tmp_path)
    monkeypatch.setattr(examples, "MOST_BYTES", 10)
    assert "at most 2 of 10 are run" in refused(same, tmp_path)


def test_a_model_without_examples_has_none(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    assert not examples.there(tmp_path)
    (tmp_path / examples.FILE).write_text(json.dumps({"tests": []}))
    assert examples.there(tmp_path)
