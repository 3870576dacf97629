import numpy as np
import orjson
import pytest
from bench.server.feeds import feeds
from bench.server.wires import Grpc, Multipart, NestedJson, OipBinary, OipJson, RawBytes

from modelpier_server.protocol.grpc.generated import inference_pb2


def test_json_holds_what_was_given() -> None:
    given = feeds("tabular", 2)
    (tensor,) = orjson.loads(OipJson().encode("tabular", given).body)["inputs"]
    assert (tensor["shape"], tensor["datatype"]) == ([1, 32], "FP32")
    assert np.allclose(tensor["data"], given["x"].ravel(), atol=1e-6)


def test_variants_differ_and_are_as_long() -> None:
    bodies = [OipBinary().encode("tabular", feeds("tabular", variant)).body for variant in range(3)]
    assert len(set(bodies)) == 3
    assert len(set(map(len, bodies))) == 1


def test_the_binary_answer_is_what_follows_its_json() -> None:
    values = np.arange(5, dtype=np.float32)
    head = {"model_name": 'a "brace" }', "outputs": [{"parameters": {"binary_data_size": values.nbytes}}]}
    assert np.array_equal(OipBinary().decode(orjson.dumps(head) + values.tobytes()), values)


@pytest.mark.parametrize("body", [b"", b"no json", b'{"outputs":[]'])
def test_what_is_no_answer_is_told_apart(body: bytes) -> None:
    with pytest.raises((ValueError, KeyError, IndexError)):
        OipBinary().decode(body)


def test_grpc_carries_raw_contents_both_ways() -> None:
    given = feeds("text")
    request = inference_pb2.ModelInferRequest.FromString(Grpc().encode("text", given).body)
    assert [tensor.name for tensor in request.inputs] == list(given)
    assert request.raw_input_contents[0] == given["input_ids"].tobytes()
    answer = inference_pb2.ModelInferResponse(raw_output_contents=[np.array([1, 2], np.float32).tobytes()])
    assert np.array_equal(Grpc().decode(answer.SerializeToString()), [1, 2])


def test_grpc_answers_may_be_typed_contents() -> None:
    answer = inference_pb2.ModelInferResponse()
    answer.outputs.add().contents.fp32_contents.extend([1, 2])
    assert np.array_equal(Grpc().decode(answer.SerializeToString()), [1, 2])


def test_nested_json_stacks_several_inputs() -> None:
    given = feeds("text")
    nested = np.array(orjson.loads(NestedJson().encode("text", given).body)["x"])
    assert nested.shape == (1, 2, 128)
    assert np.array_equal(nested[:, 0], given["input_ids"])


def test_bytes_and_forms_hold_the_picture() -> None:
    given = feeds("image")
    raw = given["x"].tobytes()
    assert RawBytes().encode("image", given).body == raw
    form = Multipart().encode("image", given)
    assert form.body.partition(b"\r\n\r\n")[2].startswith(raw)
    assert "boundary=" in form.headers["content-type"]
