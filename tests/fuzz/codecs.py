"""Bodies over HTTP. The first byte of an input chooses the model, the rest is the body.

What is taken must be a tensor as the model declares it, must have an answer, and comes back from that answer unchanged;
what is refused must be refused by an error of the client's that can be written as one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from fuzz.targets import Check
from modelpier_server.contract import TensorSpec
from modelpier_server.errors import ServerError
from modelpier_server.protocol import generate, infer_request, infer_response, plain, predict
from modelpier_server.protocol.datatypes import DATATYPES
from modelpier_server.protocol.http import Response
from modelpier_server.protocol.infer_request import InferRequest
from modelpier_server.protocol.signature import Signature

Specs = tuple[tuple[str, str, tuple[int, ...]], ...]
MODELS: tuple[Specs, ...] = (
    (("x", "FP32", (-1, 3)),),
    tuple((name.lower(), name, (-1,)) for name in DATATYPES),
    (("text_input", "BYTES", (-1,)),),
    (("ids", "INT64", (-1, -1)), ("mask", "INT64", (-1, -1))),
    (("x", "FP16", (2,)), ("y", "BF16", (1, -1))),
    (("x", "FP64", ()),),
    (("text", "BYTES", (-1, 1)), ("parameters", "BOOL", (-1, 1))),
    (("image", "UINT8", (-1, -1, -1, 3)),),
)


def signature_of(specs: Specs, *, empty_rows: bool = True) -> Signature:
    """Of a model that gives back what it takes."""
    tensors = [TensorSpec(*spec) for spec in specs]
    made = Signature.of(tensors, tensors)
    return Signature(made.inputs, made.outputs, empty_rows)


SIGNATURES = tuple(signature_of(specs, empty_rows=bool(index % 2)) for index, specs in enumerate(MODELS))


def chosen(data: bytes) -> tuple[Signature, bytes]:
    return (SIGNATURES[data[0] % len(SIGNATURES)], data[1:]) if data else (SIGNATURES[0], b"")


def refused(error: ServerError) -> None:
    """Fails unless it is the client's fault, and can be told so."""
    if not 400 <= error.status < 500:
        raise AssertionError(f"a client's mistake is answered {error.status}: {error}") from error
    assert list(orjson.loads(Response.of_error(error).body)) == ["error"]


def check_inputs(inputs: Mapping[str, np.ndarray], signature: Signature) -> None:
    assert inputs.keys() == signature.inputs.keys()
    for name, array in inputs.items():
        slot = signature.inputs[name]
        assert array.dtype == slot.datatype.numpy, name
        assert len(array.shape) == len(slot.spec.shape), name
        assert all(want in (-1, got) for got, want in zip(array.shape, slot.spec.shape, strict=True)), name
        if array.dtype.hasobject:
            assert all(type(value) is str for value in array.ravel().tolist()), name


def same(first: np.ndarray, second: np.ndarray) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.dtype.hasobject:
        return bool((first == second).all())
    return first.tobytes() == second.tobytes()


def asked_again(request: InferRequest, signature: Signature) -> None:
    """The answer of the model, asked for as binary, is a request that says the same."""
    wanted = InferRequest(None, request.inputs, None, binary=True)
    encoded = infer_response.encode("m", "1", wanted, signature, list(request.inputs.values()))
    body = encoded.json.replace(b'"outputs":', b'"inputs":', 1) + b"".join(bytes(part) for part in encoded.tensors)
    again = infer_request.decode(body, len(encoded.json) - 1, signature)
    for name, array in request.inputs.items():
        assert same(array, again.inputs[name]), name


def answered(request: InferRequest, signature: Signature) -> None:
    names = tuple(signature.outputs) if request.outputs is None else request.outputs
    arrays = [request.inputs[name] for name in names]
    try:
        encoded = infer_response.encode("m", "1", request, signature, arrays)
    except ServerError as error:
        refused(error)
        return
    answer = orjson.loads(encoded.json)
    assert answer.get("id") == request.id
    assert [output["name"] for output in answer["outputs"]] == list(names)


def _infer(body: bytes, length: int | None, signature: Signature) -> None:
    try:
        request = infer_request.decode(body, length, signature)
    except ServerError as error:
        refused(error)
        return
    check_inputs(request.inputs, signature)
    answered(request, signature)
    ordered = {name: request.inputs[name] for name in signature.inputs}
    asked_again(InferRequest(None, ordered, None, binary=True), signature)


def make_infer_json() -> Check:
    def check(data: bytes) -> None:
        signature, body = chosen(data)
        _infer(body, None, signature)

    return check


def make_infer_binary() -> Check:
    """Two more bytes say how long the JSON part is: 0 is a raw body, and more than there is must be refused."""

    def check(data: bytes) -> None:
        signature, rest = chosen(data)
        length, body = int.from_bytes(rest[:2], "little"), rest[2:]
        if length <= len(body):
            _infer(body, length, signature)
            return
        try:
            infer_request.decode(body, length, signature)
        except ServerError as error:
            refused(error)
        else:
            raise AssertionError("a JSON part longer than the body was taken")

    return check


def make_predict() -> Check:
    def check(data: bytes) -> None:
        signature, body = chosen(data)
        try:
            predict.is_infer(predict.message_of(body))
            request = predict.decode(body, signature)
            check_inputs(request.inputs, signature)
            arrays = [request.inputs[name] for name in signature.outputs]
            assert "predictions" in orjson.loads(predict.encode(signature, arrays, request.rows))
        except ServerError as error:
            refused(error)

    return check


def make_generate() -> Check:
    def check(data: bytes) -> None:
        signature, body = chosen(data)
        try:
            request = generate.decode(body, signature)
            check_inputs(request.inputs, signature)
            arrays = [request.inputs[name] for name in signature.outputs]
            answer = generate.encode("m", "1", request, signature, arrays)
        except ServerError as error:
            refused(error)
            return
        assert orjson.loads(answer)["model_name"] == "m"
        assert generate.event(answer).count(b"\n") == 2

    return check


def make_plain() -> Check:
    def check(data: bytes) -> None:
        signature, body = chosen(data)
        try:
            inputs = plain.inputs_of(plain.decode(body), signature)
            check_inputs(inputs, signature)
            answer = plain.encode(signature, [inputs[name] for name in signature.outputs])
        except ServerError as error:
            refused(error)
            return
        assert "output_data" in orjson.loads(answer)

    return check


# ------------------------------------------------------------------------------------------ what to begin with
_VALUES: Mapping[str, Any] = {"BOOL": True, "BYTES": "a\u00e9", "FP16": 1.5, "BF16": 2.0}


def _nested(datatype: str, shape: tuple[int, ...]) -> Any:
    value: Any = _VALUES.get(datatype, 1)
    for size in reversed(shape):
        value = [value] * (2 if size == -1 else size)
    return value


def _flat(value: Any) -> list[Any]:
    return [element for part in value for element in _flat(part)] if isinstance(value, list) else [value]


def _sizes(shape: tuple[int, ...]) -> list[int]:
    return [2 if size == -1 else size for size in shape]


def _named(value: Mapping[int, Any], name: str) -> Mapping[str, bytes]:
    return {f"{name}-{index}": bytes([index]) + json.dumps(body).encode() for index, body in value.items()}


def _tensors(specs: Specs, *, nested: bool) -> list[dict[str, Any]]:
    data = [_nested(datatype, shape) for _, datatype, shape in specs]
    return [
        {"name": name, "datatype": datatype, "shape": _sizes(shape), "data": value if nested else _flat(value)}
        for (name, datatype, shape), value in zip(specs, data, strict=True)
    ]


def seeds_infer_json() -> Mapping[str, bytes]:
    flat = {i: {"id": "7", "inputs": _tensors(specs, nested=False)} for i, specs in enumerate(MODELS)}
    nested = {i: {"inputs": _tensors(specs, nested=True)} for i, specs in enumerate(MODELS)}
    outputs = [
        {"name": "x", "parameters": {"binary_data": True}},
        {"name": "x", "parameters": {"classification": 2, "binary_data": False}},
    ]
    parameters = {"binary_data_output": True, "priority": 1, "timeout": 10}
    choices = {0: {"inputs": _tensors(MODELS[0], nested=False), "outputs": outputs[1:], "parameters": parameters}}
    twice = {0: {"inputs": _tensors(MODELS[0], nested=False), "outputs": outputs}}
    return {**_named(flat, "flat"), **_named(nested, "nested"), **_named(choices, "choices"), **_named(twice, "twice")}


def seeds_infer_binary() -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    for index, (specs, signature) in enumerate(zip(MODELS, SIGNATURES, strict=True)):
        arrays = []
        for slot in signature.inputs.values():
            array = np.empty(_sizes(slot.spec.shape), slot.datatype.numpy)
            array[...] = _VALUES.get(slot.datatype.name, 1)
            arrays.append(array)
        asked = InferRequest("7", {}, None, binary=True)
        encoded = infer_response.encode("m", "1", asked, signature, arrays)
        head = encoded.json.replace(b'"outputs":', b'"inputs":', 1)
        body = head + b"".join(bytes(tensor) for tensor in encoded.tensors)
        found[f"binary-{index}"] = bytes([index]) + len(head).to_bytes(2, "little") + body
        if len(specs) == 1:
            found[f"raw-{index}"] = bytes([index]) + b"\0\0" + bytes(encoded.tensors[0])
    return found


def seeds_predict() -> Mapping[str, bytes]:
    columns: dict[int, Any] = {}
    rows: dict[int, Any] = {}
    for index, specs in enumerate(MODELS):
        named = {name: _nested(datatype, shape) for name, datatype, shape in specs}
        columns[index] = {"inputs": named if len(named) > 1 else next(iter(named.values()))}
        if all(shape for _, _, shape in specs):
            rows[index] = {"instances": [{name: value[0] for name, value in named.items()}] * 2}
    encoded = {2: {"instances": [{"b64": "YQ=="}, "b"], "signature_name": "x"}, 0: {"instances": [[1, 2, 3]]}}
    return {**_named(columns, "columns"), **_named(rows, "rows"), **_named(encoded, "short")}


def seeds_generate() -> Mapping[str, bytes]:
    flat = {
        index: {"id": "1", **{name: _flat(_nested(datatype, shape)) for name, datatype, shape in specs}}
        for index, specs in enumerate(MODELS)
    }
    text = {2: {"text_input": "hello", "parameters": {"temperature": 0.5, "stream": False}}, 5: {"x": 1.5}}
    return {**_named(flat, "flat"), **_named(text, "text")}


def seeds_plain() -> Mapping[str, bytes]:
    data: dict[int, Any] = {}
    for index, specs in enumerate(MODELS):
        named = {name: _nested(datatype, shape) for name, datatype, shape in specs}
        data[index] = {"model_name": "m", "input_data": named if len(named) > 1 else next(iter(named.values()))}
    return _named(data, "data")
