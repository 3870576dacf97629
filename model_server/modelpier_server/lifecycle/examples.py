"""Examples that lie beside a model: what goes in, and what must come out. `golden` runs them before the model serves.

Two forms, and a folder may hold both: `test_data_set_*/input_*.pb` and `output_*.pb`, as the models of the ONNX zoo and
ONNX's own backend tests have them; and `tests.json`, with requests and responses of the Open Inference Protocol.
Everything is bounded: whoever wrote the model wrote these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy.typing as npt

from modelpier_server.contract import FailureReason
from modelpier_server.errors import InvalidRequest, ModelError
from modelpier_server.protocol import elements, infer_request, onnx_tensor
from modelpier_server.protocol.reading import decoded
from modelpier_server.protocol.shape import check_shape
from modelpier_server.protocol.signature import Signature, Slot
from modelpier_server.scheduler.check import check_inputs

FOLDERS = "test_data_set_*"
FILE = "tests.json"
MOST_TESTS = 64
MOST_BYTES = 256 * 1024 * 1024
"""Of all files together."""
_NUMBER = re.compile(r"(\d{1,6})\.pb")

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Example:
    name: str
    inputs: Arrays
    outputs: Arrays


class _Response(msgspec.Struct):
    outputs: list[infer_request.InputTensor]


class _Test(msgspec.Struct):
    request: msgspec.Raw
    response: _Response
    name: str = ""


class _Tests(msgspec.Struct):
    tests: list[_Test]


_decode = msgspec.json.Decoder(_Tests).decode


def there(folder: Path) -> bool:
    """Whether the model brings any."""
    return (folder / FILE).exists() or any(folder.glob(FOLDERS))


def read(folder: Path, signature: Signature) -> Iterator[Example]:
    """One after the other: only one is in memory. Raises ModelError(GOLDEN_TEST_FAILED) for what cannot be used."""
    sets = sorted(path for path in folder.glob(FOLDERS) if path.is_dir())
    files = [folder / FILE] if (folder / FILE).exists() else []
    size = sum(path.stat().st_size for path in (*files, *(file for path in sets for file in path.glob("*.pb"))))
    if len(sets) > MOST_TESTS or size > MOST_BYTES:
        raise refusal(
            "golden tests", f"{len(sets)} of {size} bytes, but at most {MOST_TESTS} of {MOST_BYTES} are run; ship fewer"
        )
    for path in sets:
        yield _of_folder(path, signature)
    for path in files:
        yield from _of_file(path, signature)


def refusal(test: str, text: str) -> ModelError:
    return ModelError(
        FailureReason.GOLDEN_TEST_FAILED,
        f"{test}: {text}; correct the model or its tests, or switch them off (model.tests.enabled: false)",
    )


def _of_folder(path: Path, signature: Signature) -> Example:
    test = f"golden test '{path.name}'"
    inputs = _tensors(path, "input", signature.inputs, test)
    outputs = _tensors(path, "output", signature.outputs, test)
    return _checked(Example(test, inputs, outputs), signature)


def _tensors(path: Path, kind: str, slots: Mapping[str, Slot], test: str) -> Arrays:
    """By the names in the files where they are the model's; else, as in ONNX's own tests, by their numbers."""
    found: dict[str, npt.NDArray[Any]] = {}
    names = list(slots)
    for file in sorted(path.glob(f"{kind}_*.pb")):
        number = _NUMBER.fullmatch(file.name.removeprefix(f"{kind}_"))
        try:
            name, array = onnx_tensor.read(file.read_bytes())
        except (OSError, ValueError) as error:
            raise refusal(test, f"{file.name} cannot be read: {error}") from error
        if name not in slots:
            if number is None or int(number[1]) >= len(names):
                raise refusal(test, f"{file.name}: the model has no {kind} '{name[:100]}'; it has {names}")
            name = names[int(number[1])]
        found[name] = array
    return found


def _of_file(path: Path, signature: Signature) -> Iterator[Example]:
    try:
        tests = decoded(_decode, path.read_bytes(), FILE).tests
    except (OSError, InvalidRequest) as error:
        raise refusal("golden tests", str(error)) from error
    if len(tests) > MOST_TESTS:
        raise refusal("golden tests", f"{FILE} has {len(tests)} tests, but at most {MOST_TESTS} are run; ship fewer")
    for index, test in enumerate(tests):
        name = f"golden test '{test.name[:100] or f'{FILE}[{index}]'}'"
        try:
            inputs = infer_request.decode(bytes(test.request), None, signature).inputs
            outputs = {tensor.name: _output(tensor, signature) for tensor in test.response.outputs}
        except InvalidRequest as error:
            raise refusal(name, str(error)) from error
        yield _checked(Example(name, inputs, outputs), signature)


def _output(tensor: infer_request.InputTensor, signature: Signature) -> npt.NDArray[Any]:
    """Raises InvalidRequest."""
    where = f"response output '{tensor.name[:100]}'"
    slot = signature.outputs.get(tensor.name)
    if slot is None or slot.datatype.name != tensor.datatype or tensor.data is msgspec.UNSET:
        there = ", ".join(f"'{name}' ({slot.datatype.name})" for name, slot in signature.outputs.items())
        raise InvalidRequest(f"{where}: must have the name and datatype of an output, and data; there are {there}")
    count = check_shape(tensor.shape, slot, signature, where)
    return elements.array_of(tensor.data, slot.datatype, tensor.shape, count, where)


def _checked(example: Example, signature: Signature) -> Example:
    try:
        check_inputs(example.inputs, signature)
    except InvalidRequest as error:
        raise refusal(example.name, str(error)) from error
    if not example.outputs:
        raise refusal(example.name, f"it expects nothing: give outputs, of {list(signature.outputs)}")
    return example
