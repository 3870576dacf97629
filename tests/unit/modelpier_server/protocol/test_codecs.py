"""Properties of the codecs: what is written is read back, and nothing else than InvalidRequest comes of nonsense."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from modelpier_server.contract import TensorSpec
from modelpier_server.errors import InvalidRequest, MethodNotAllowed, PayloadTooLarge, QueueFull
from modelpier_server.protocol import elements, generate, infer_response, plain, predict, shape
from modelpier_server.protocol.datatypes import DATATYPES
from modelpier_server.protocol.http import Response
from modelpier_server.protocol.infer_request import InferRequest, decode
from modelpier_server.protocol.infer_response import encode
from modelpier_server.protocol.inflate import STEP, Inflation
from modelpier_server.protocol.signature import Signature

NUMBERS = [name for name, datatype in DATATYPES.items() if datatype.json in {int, float, bool}]


def signature(datatype: str, rank: int) -> Signature:
    shape = (-1,) * rank
    return Signature.of([TensorSpec("x", datatype, shape)], [TensorSpec("y", datatype, shape)])


@st.composite
def arrays(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    name = draw(st.sampled_from(NUMBERS))
    dtype = DATATYPES[name].numpy
    elements = npst.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    array = draw(
        npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=elements)
    )
    return name, array


@pytest.mark.parametrize("form", ["infer", "binary strings", "predict", "generate", "plain"])
def test_every_form_of_answer_is_bounded(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape, "JSON_LIMIT", 2)
    monkeypatch.setattr(shape, "STRINGS_LIMIT", 2)
    monkeypatch.setattr(infer_response, "JSON_LIMIT", 2)
    model = signature("BYTES" if form == "binary strings" else "FP32", 1)
    dtype = model.outputs["y"].datatype.numpy

    def written(size: int) -> None:
        outputs = [np.full(size, "a" if dtype.hasobject else 1, dtype)]
        if form in {"infer", "binary strings"}:
            asked = InferRequest(None, {}, None, binary=form != "infer")
            encode("m", "1", asked, model, outputs)
        elif form == "predict":
            predict.encode(model, outputs, None)
        elif form == "generate":
            generate.encode("m", "1", generate.GenerateRequest(None, {}), model, outputs)
        else:
            plain.encode(model, outputs)

    written(2)
    with pytest.raises(InvalidRequest, match="at most can be written"):
        written(3)


@given(arrays(), st.booleans())
def test_json_there_and_back(case: tuple[str, np.ndarray], nested: bool) -> None:
    name, array = case
    data = array.tolist() if nested else array.ravel().tolist()
    entry = {"name": "x", "shape": array.shape, "datatype": name, "data": data}
    model = signature(name, array.ndim)
    if nested and 0 in array.shape[:-1]:
        return  # the nesting of an empty list cannot be seen
    request = decode(json.dumps({"inputs": [entry]}).encode(), None, model)
    assert request.inputs["x"].dtype == array.dtype
    assert np.array_equal(request.inputs["x"], array)
    answer = json.loads(encode("m", "1", request, model, [request.inputs["x"]]).json)
    assert np.array_equal(np.array(answer["outputs"][0]["data"], array.dtype).reshape(array.shape), array)


@given(arrays())
def test_plain_there_and_back(case: tuple[str, np.ndarray]) -> None:
    name, array = case
    if 0 in array.shape:
        return
    model = signature(name, array.ndim)
    body = json.dumps({"model_name": "m", "input_data": array.tolist()}).encode()
    inputs = plain.inputs_of(plain.decode(body), model)
    assert np.array_equal(inputs["x"], array)
    answer = json.loads(plain.encode(model, [array]))
    assert np.array_equal(np.array(answer["output_data"], array.dtype), array)


@given(st.binary(max_size=200), st.none() | st.integers(0, 250))
def test_bytes_that_are_no_request(body: bytes, length: int | None) -> None:
    try:
        decode(body, length, signature("FP32", 2))
    except InvalidRequest:
        return
    assert length == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=15,
)


@given(
    shape=JSON | st.lists(st.integers(-2, 1 << 70), max_size=3),
    data=JSON,
    datatype=st.sampled_from([*DATATYPES, "FOO"]),
    parameters=JSON | st.fixed_dictionaries({"binary_data_size": JSON}),
    name=st.sampled_from(["x", "z"]),
)
def test_json_that_is_no_request(**entry: Any) -> None:
    body = json.dumps({"inputs": [entry]}).encode()
    model = signature("FP32", 2)
    try:
        request = decode(body, None, model)
    except InvalidRequest:
        return
    assert request.inputs["x"].shape == tuple(entry["shape"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_what_json_cannot_say_is_an_error(value: float, datatype: str) -> None:
    model = signature(datatype, 1)
    request = decode(
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"%b","data":[1]}]}' % datatype.encode(), None, model
    )
    array = np.array([1, value], DATATYPES[datatype].numpy)
    with pytest.raises(InvalidRequest, match="NaN or infinity"):
        encode("m", "1", request, model, [array])
    with pytest.raises(InvalidRequest, match="NaN or infinity"):
        plain.encode(model, [array])
    request.binary = True
    assert encode("m", "1", request, model, [array]).tensors


def test_null_in_names_and_ids_is_no_nan() -> None:
    model = signature("FP32", 1)
    request = decode(b'{"id":"null","inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}', None, model)
    assert b'"id":"null"' in encode("null", "1", request, model, [np.ones(1, np.float32)]).json


def test_half_precision_of_the_plain_route() -> None:
    for name, dtype in (("FP16", np.float16), ("BF16", ml_dtypes.bfloat16)):
        model = signature(name, 1)
        inputs = plain.inputs_of(plain.decode(b'{"model_name":"m","input_data":[1.5,-2]}'), model)
        assert inputs["x"].dtype == dtype
        assert json.loads(plain.encode(model, [inputs["x"]])) == {"output_data": [1.5, -2.0]}


def test_depth_is_seen_through_blanks() -> None:
    assert elements.depth_of(msgspec.Raw(b" [\n [ [1]]]")) == 3
    assert elements.depth_of(msgspec.Raw(b"1")) == 0


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    inflation, size = Inflation(body, encoding, limit), 0
    while not inflation.step():
        assert len(inflation.plain) <= size + STEP
        size = len(inflation.plain)
    return bytes(inflation.plain)


def test_inflating_stops_at_the_limit() -> None:
    bomb = zlib.compress(b"\0" * 10_000_000)
    with pytest.raises(PayloadTooLarge):
        inflate(bomb, "deflate", 1000)
    assert len(inflate(bomb, "deflate", 10_000_000)) == 10_000_000


@pytest.mark.parametrize("size", [0, 1, STEP - 1, STEP, STEP + 1, 3 * STEP])
@pytest.mark.parametrize("window", [31, zlib.MAX_WBITS, -zlib.MAX_WBITS])
def test_inflating_by_steps_gives_the_same_bytes(size: int, window: int) -> None:
    plain = np.random.default_rng(1).integers(0, 4, size, np.uint8).tobytes()
    squeeze = zlib.compressobj(wbits=window)
    packed = squeeze.compress(plain) + squeeze.flush()
    assert inflate(packed, "gzip" if window == 31 else "deflate", max(size, 1)) == plain
    with pytest.raises(InvalidRequest):
        inflate(packed[:-1], "gzip" if window == 31 else "deflate", size + 1)


def test_retry_after_is_a_whole_second_at_least() -> None:
    assert Response.of_error(QueueFull("full", 0.2)).headers["retry-after"] == "1"
    assert Response.of_error(MethodNotAllowed("GET")).headers["allow"] == "GET"
