"""Folders with a model and the examples that it brings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import numpy_helper

Arrays = Mapping[str, npt.NDArray[Any]]


def data_set(folder: Path, inputs: Arrays, outputs: Arrays, number: int = 0, *, named: bool = True) -> Path:
    """As ONNX's own tests have it."""
    path = folder / f"test_data_set_{number}"
    path.mkdir(parents=True, exist_ok=True)
    for kind, arrays in (("input", inputs), ("output", outputs)):
        for index, (name, array) in enumerate(arrays.items()):
            tensor = numpy_helper.from_array(array, name if named else "")
            (path / f"{kind}_{index}.pb").write_bytes(tensor.SerializeToString())
    return path


def request_file(folder: Path, *tests: tuple[str, Arrays, Arrays]) -> Path:
    """(name, inputs, outputs) of FP32 each."""
    path = folder / "tests.json"
    found = [
        {"name": name, "request": {"inputs": _tensors(inputs)}, "response": {"outputs": _tensors(outputs)}}
        for name, inputs, outputs in tests
    ]
    path.write_text(json.dumps({"tests": found}))
    return path


def _tensors(arrays: Arrays) -> list[dict[str, Any]]:
    return [
        {"name": name, "datatype": "FP32", "shape": list(array.shape), "data": array.tolist()}
        for name, array in arrays.items()
    ]


def fp32(*rows: Any) -> npt.NDArray[Any]:
    return np.array(rows, np.float32)
