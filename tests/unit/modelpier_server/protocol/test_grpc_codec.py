"""Messages of the Open Inference Protocol over gRPC: there and back, byte by byte, and wrong ones."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tritonclient.grpc import model_config_pb2, service_pb2

from modelpier_server.contract import TensorSpec
from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol.datatypes import DATATYPES
from modelpier_server.protocol.grpc import decode as decoding
from modelpier_server.protocol.grpc import encode as encoding
from modelpier_server.protocol.grpc.decode import CONTENTS, decode
from modelpier_server.protocol.grpc.encode import encode
from modelpier_server.protocol.grpc.generated import inference_pb2 as pb
from modelpier_server.protocol.grpc.messages import parse
from modelpier_server.protocol.shape import STRINGS_LIMIT
from modelpier_server.protocol.signature import Signature
from support.grpc_serving import message, one

VECTORS = json.loads((Path(__file__).parents[3] / "golden" / "grpc_messages.json").read_text())
TYPED = sorted(CONTENTS)


def signature(datatype: str, *shape: int) -> Signature:
    return Signature.of([TensorSpec("x", datatype, shape)], [TensorSpec("y", datatype, shape)])


# ---------------------------------------------------------------------------------------------- the definition
def theirs(name: str) -> Any:
    found = service_pb2.DESCRIPTOR.message_types_by_name.get(name)
    return found or model_config_pb2.DESCRIPTOR.message_types_by_name[name]


def facts(field: Any) -> tuple[Any, ...]:
    kind = field.message_type or field.enum_type
    group = field.containing_oneof.name if field.containing_oneof else ""
    return field.number, field.type, field.is_repeated, kind.full_name if kind else "", group


def compare(ours: Any, other: Any) -> None:
    for field in ours.fields:
        assert facts(field) == facts(other.fields_by_name[field.name]), field.full_name
    for nested in ours.nested_types:
        compare(nested, other.nested_types_by_name[nested.name])
    for enum in ours.enum_types:
        compare_enum(enum, other.enum_types_by_name[enum.name])


def compare_enum(ours: Any, other: Any) -> None:
    assert {v.name: v.number for v in ours.values} == {v.name: v.number for v in other.values}, ours.full_name


@pytest.mark.parametrize("name", sorted(pb.DESCRIPTOR.message_types_by_name))
def test_messages_are_those_of_triton(name: str) -> None:
    compare(pb.DESCRIPTOR.message_types_by_name[name], theirs(name))


def test_requests_and_answers_are_complete() -> None:
    """Of Triton's configuration some is left out; of what carries tensors nothing is."""
    for name in ("ModelInferRequest", "ModelInferResponse", "InferTensorContents", "InferParameter", "ModelStatistics"):
        ours = pb.DESCRIPTOR.message_types_by_name[name].fields_by_name
        assert set(ours) == set(theirs(name).fields_by_name)


def test_methods_are_those_of_triton() -> None:
    other = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        same = other[method.name]
        assert (method.input_type.full_name, method.output_type.full_name) == (
            same.input_type.full_name,
            same.output_type.full_name,
        )
        assert (method.client_streaming, method.server_streaming) == (same.client_streaming, same.server_streaming)
    compare_enum(
        pb.DESCRIPTOR.enum_types_by_name["DataType"], model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"]
    )


# ---------------------------------------------------------------------------------------------- there and back
@st.composite
def arrays(draw: st.DrawFn, names: list[str]) -> tuple[str, np.ndarray]:
    name = draw(st.sampled_from(names))
    shapes = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    if name == "BYTES":
        text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
        return name, draw(npst.arrays(np.object_, shapes, elements=text, fill=st.nothing()))
    if name == "BF16":
        return name, draw(npst.arrays(np.float32, shapes)).astype(ml_dtypes.bfloat16)
    return name, draw(npst.arrays(DATATYPES[name].numpy, shapes))


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@given(arrays(sorted(DATATYPES)), st.booleans())
def test_raw_there_and_back(case: tuple[str, np.ndarray], unaligned: bool) -> None:
    name, array = case
    model = signature(name, *[-1] * array.ndim)
    sent = one(array, name, id="i\u00e9" if unaligned else "")
    request = decode(parse(pb.ModelInferRequest, sent.SerializeToString()), model)
    assert_same(request.inputs["x"], array)
    answer = encode("m", "1", request, model, [request.inputs["x"]])
    assert answer.raw_output_contents[0] == sent.raw_input_contents[0]
    assert (answer.id, list(answer.outputs[0].shape), answer.outputs[0].datatype) == (sent.id, [*array.shape], name)
    assert not answer.outputs[0].HasField("contents")


@given(arrays(TYPED))
def test_typed_there_and_back(case: tuple[str, np.ndarray]) -> None:
    name, array = case
    model = signature(name, *[-1] * array.ndim)
    request = decode(parse(pb.ModelInferRequest, typed(name, array).SerializeToString()), model)
    assert_same(request.inputs["x"], array)
    answer = encode("m", "1", request, model, [request.inputs["x"]])
    assert not answer.raw_output_contents
    assert_same(decode(typed_of(answer.outputs[0]), model).inputs["x"], array)


def typed(name: str, array: np.ndarray, field: str = "") -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype=name, shape=array.shape)
    values = array.ravel().tolist()
    encoded = [value.encode() for value in values] if name == "BYTES" else values
    getattr(tensor.contents, field or CONTENTS[name]).extend(encoded)
    return request


def typed_of(output: pb.ModelInferResponse.InferOutputTensor) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest()
    request.inputs.add(name="x", datatype=output.datatype, shape=output.shape, contents=output.contents)
    return request


def assert_same(left: np.ndarray, right: np.ndarray) -> None:
    assert (left.dtype, left.shape) == (right.dtype, right.shape)
    if left.dtype.hasobject:
        assert left.tolist() == right.tolist()
    else:
        assert left.tobytes() == right.tobytes() or np.array_equal(left, right, equal_nan=True)


# ---------------------------------------------------------------------------------------------- byte by byte
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vectors(vector: dict[str, Any]) -> None:
    """Made by hand from the specification; a client of others' making reads and writes the same bytes."""
    raw = bytes.fromhex(vector["request"])
    model = signature(vector["datatype"], *vector["shape"])
    request = decode(parse(pb.ModelInferRequest, raw), model)
    assert request.inputs["x"].tolist() == vector["values"]
    answer = encode("m", "1", request, model, [request.inputs["x"]]).SerializeToString()
    assert answer.hex() == vector["response"]
    assert service_pb2.ModelInferRequest.FromString(raw).SerializeToString(deterministic=True) == raw
    if "typed" in vector["name"]:
        return  # Triton's client sends raw contents and reads nothing else
    result = tritonclient.grpc.InferResult(service_pb2.ModelInferResponse.FromString(answer))
    found = result.as_numpy("y")
    if vector["datatype"] == "BYTES":
        found = np.vectorize(lambda value: value.decode(), otypes=[object])(found)
    assert found.tolist() == vector["values"]


# ---------------------------------------------------------------------------------------------- answers
def test_outputs_are_chosen_and_ordered() -> None:
    model = Signature.of([TensorSpec("x", "FP32", (1,))], [TensorSpec(n, "FP32", (1,)) for n in ("a", "b", "c")])
    array = np.ones(1, np.float32)
    request = decode(one(array, outputs=["c", "a"]), model)
    assert request.outputs == ("c", "a")
    answer = encode("m", "1", request, model, [array, array])
    assert [output.name for output in answer.outputs] == ["c", "a"]


@pytest.mark.parametrize("asked", [None, True, False])
@pytest.mark.parametrize("raw", [True, False])
def test_answers_come_as_requests_do_unless_told(raw: bool, asked: bool | None) -> None:
    model = signature("FP32", 1)
    array = np.ones(1, np.float32)
    request = one(array) if raw else typed("FP32", array)
    if asked is not None:
        request.parameters["binary_data_output"].bool_param = asked
    answer = encode("m", "1", decode(request, model), model, [array])
    assert bool(answer.raw_output_contents) == (raw if asked is None else asked)


def test_one_half_output_makes_all_raw() -> None:
    model = Signature.of(
        [TensorSpec("x", "FP32", (1,))], [TensorSpec("a", "FP32", (1,)), TensorSpec("h", "FP16", (1,))]
    )
    outputs: list[np.ndarray] = [np.ones(1, np.float32), np.ones(1, np.float16)]
    answer = encode("m", "1", decode(typed("FP32", outputs[0]), model), model, outputs)
    assert [len(raw) for raw in answer.raw_output_contents] == [4, 2]


def test_large_answers_are_raw_and_strings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed contents are made one by one, while everybody else waits."""
    model = signature("FP32", -1)
    request = decode(typed("FP32", np.ones(3, np.float32)), model)
    monkeypatch.setattr(encoding, "TYPED_LIMIT", 2)
    assert not encode("m", "1", request, model, [np.ones(2, np.float32)]).raw_output_contents
    assert encode("m", "1", request, model, [np.ones(3, np.float32)]).raw_output_contents
    texts = signature("BYTES", -1)
    many = np.full(STRINGS_LIMIT + 1, "", np.object_)
    with pytest.raises(InvalidRequest, match="ask for fewer rows"):
        encode("m", "1", request, texts, [many])


def test_typed_contents_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "TYPED_LIMIT", 2)
    model = signature("FP32", -1)
    assert decode(typed("FP32", np.ones(2, np.float32)), model)
    with pytest.raises(InvalidRequest, match="send them in raw_input_contents"):
        decode(typed("FP32", np.ones(3, np.float32)), model)


def test_what_json_cannot_say() -> None:
    model = signature("FP32", 3)
    array = np.array([np.nan, np.inf, -np.inf], np.float32)
    answer = encode("m", "1", decode(typed("FP32", array), model), model, [array])
    assert np.array_equal(answer.outputs[0].contents.fp32_contents, array, equal_nan=True)


# ---------------------------------------------------------------------------------------------- what is wrong
ROW = b"\0" * 12


def twice(tensor: Any) -> pb.ModelInferRequest:
    return message(tensor, tensor)


def mixed() -> pb.ModelInferRequest:
    request = message(("x", "FP32", [1, 3], ROW))
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3])
    return request


def counted(raw: int) -> pb.ModelInferRequest:
    request = message(("x", "FP32", [1, 3], ROW))
    del request.raw_input_contents[:]
    request.raw_input_contents.extend([ROW] * raw)
    return request


def with_parameter(name: str, *, output: bool = False) -> pb.ModelInferRequest:
    request = message(("x", "FP32", [1, 3], ROW), outputs=["y"])
    (request.outputs if output else request.inputs)[0].parameters[name].string_param = "r"
    return request


X = "inputs[0]"
WRONG = [
    ("no inputs", message(), "inputs: 'x' missing"),
    ("unknown input", message(("z", "FP32", [1, 3], ROW)), f"{X}.name: the model has no input 'z'; it has 'x'"),
    ("twice", twice(("x", "FP32", [1, 3], ROW)), "inputs[1].name: 'x' is given twice"),
    ("datatype unknown", message(("x", "FOO", [1, 3], ROW)), f"{X}.datatype: 'FOO' is none of"),
    ("datatype other", message(("x", "INT64", [1, 3], ROW)), f"{X}.datatype: INT64, but input 'x' takes FP32"),
    ("size", message(("x", "FP32", [1, 4], ROW)), f"{X}.shape: [1, 4] does not fit"),
    ("rank", message(("x", "FP32", [3], ROW)), f"{X}.shape: [3] does not fit"),
    ("negative", message(("x", "FP32", [-1, 3], ROW)), f"{X}.shape: [-1, 3] does not fit"),
    ("huge", message(("x", "FP32", [2**40, 3], ROW)), f"{X}.shape: [1099511627776, 3] does not fit"),
    ("larger than anything", message(("x", "FP32", [2**62, 3], ROW)), f"{X}.shape: [4611686018427387904, 3] does"),
    ("product", message(("x", "FP32", [2**39, 3], ROW)), f"{X}.shape: [549755813888, 3] has more elements than any"),
    ("many rows", message(("x", "FP32", [2**30, 3], ROW)), "raw_input_contents[0]: 12 bytes, but FP32 [1073741824, 3]"),
    ("short", message(("x", "FP32", [1, 3], ROW[1:])), "raw_input_contents[0]: 11 bytes, but FP32 [1, 3] has 12"),
    ("long", message(("x", "FP32", [1, 3], ROW + b"\0")), "raw_input_contents[0]: 13 bytes, but FP32 [1, 3] has 12"),
    ("too few raw", counted(0), f"{X}.contents.fp32_contents: 0 elements, but the shape [1, 3] has 3"),
    ("too many raw", counted(2), "raw_input_contents: 2 for 1 inputs; give one per input, or none"),
    ("both", mixed(), f"{X}.contents: must be empty where raw_input_contents are given"),
    ("other field", typed("FP32", np.ones((1, 3)), "fp64_contents"), f"{X}.contents.fp64_contents: not for FP32"),
    ("unknown output", message(("x", "FP32", [1, 3], ROW), outputs=["q"]), "outputs[0].name: the model has no output"),
    ("output twice", message(("x", "FP32", [1, 3], ROW), outputs=["y", "y"]), "outputs[1].name: 'y' is asked for"),
    ("memory in", with_parameter("shared_memory_region"), f"{X}.parameters.shared_memory_region: not supported"),
    ("memory out", with_parameter("shared_memory_region", output=True), "outputs[0].parameters.shared_memory_region"),
    ("classes", with_parameter("classification", output=True), "outputs[0].parameters.classification: not supported"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "text"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_wrong_requests_are_told_what_is_wrong(request_: pb.ModelInferRequest, text: str) -> None:
    with pytest.raises(InvalidRequest) as failure:
        decode(request_, signature("FP32", -1, 3))
    assert str(failure.value).startswith(text)


@pytest.mark.parametrize(
    ("datatype", "values"),
    [("INT8", [128]), ("INT8", [-129]), ("INT16", [32768]), ("UINT8", [256]), ("UINT16", [65536])],
)
def test_elements_out_of_range(datatype: str, values: list[int]) -> None:
    with pytest.raises(InvalidRequest, match=rf"an element does not fit {datatype}"):
        decode(typed(datatype, np.array(values)), signature(datatype, 1))


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_halves_have_no_typed_contents(datatype: str) -> None:
    request = typed("FP32", np.ones(1))
    request.inputs[0].datatype = datatype
    with pytest.raises(InvalidRequest, match="has no typed contents; send it in raw_input_contents"):
        decode(request, signature(datatype, 1))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x02\0\0\0a", "2 bytes are declared, 1 are left"),
        (b"\xff\xff\xff\xff", "4294967295 bytes are declared"),
        (b"\x01\0\0\0\xff", "not UTF-8"),
        (b"\0\0\0\0\0\0\0\0", "does not end after the 1 BYTES elements"),
        (b"\0\0\0", "cannot hold 1 BYTES elements"),
    ],
)
def test_strings_that_are_none(raw: bytes, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        decode(message(("x", "BYTES", [1], raw)), signature("BYTES", 1))


def test_elements_that_are_none() -> None:
    with pytest.raises(InvalidRequest, match="0 or 1"):
        decode(message(("x", "BOOL", [1], b"\x02")), signature("BOOL", 1))
    request = pb.ModelInferRequest()
    request.inputs.add(name="x", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"\xff")
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        decode(request, signature("BYTES", 1))


@given(st.binary(max_size=200))
def test_nonsense_is_refused_or_read(raw: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        decode(parse(pb.ModelInferRequest, raw), signature("FP32", -1, 3))


@given(st.data())
def test_damaged_requests_are_refused_or_read(data: st.DataObject) -> None:
    whole = bytearray(message(("x", "FP32", [1, 3], ROW), outputs=["y"], id="i").SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        request = decode(parse(pb.ModelInferRequest, bytes(whole)), signature("FP32", -1, 3))
    except InvalidRequest:
        return
    assert request.inputs["x"].shape[1] == 3
    assert request.inputs["x"].nbytes == request.inputs["x"].shape[0] * 12


@pytest.mark.parametrize("kind", ["int64_param", "uint64_param"])
def test_priority_and_time_of_a_request(kind: str) -> None:
    request = typed("FP32", np.ones(1, np.float32))
    assert (decode(request, signature("FP32", 1)).priority, decode(request, signature("FP32", 1)).timeout) == (0, None)
    setattr(request.parameters["priority"], kind, 2)
    setattr(request.parameters["timeout"], kind, 250_000)
    found = decode(request, signature("FP32", 1))
    assert (found.priority, found.timeout) == (2, 0.25)


@pytest.mark.parametrize("value", [{"string_param": "1"}, {"int64_param": -1}, {"bool_param": True}])
def test_a_priority_that_is_no_whole_number(value: dict[str, Any]) -> None:
    request = typed("FP32", np.ones(1, np.float32))
    ((kind, given),) = value.items()
    setattr(request.parameters["priority"], kind, given)
    with pytest.raises(InvalidRequest, match=r"parameters.priority: must be a whole number"):
        decode(request, signature("FP32", 1))
