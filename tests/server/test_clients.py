"""Clients that others wrote against the real server: Triton's (HTTP, sync and aio) and curl.

KServe's is in tests/heavy, for its size. The gRPC clients have a file of their own.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from modelpier_server.contract import LIVE_PATH
from support import onnx_models
from support.server_process import PlanVolume, ServerProcess, infer_body, server, wait_for

X = np.array([[1, 2.5, -3], [4, 5, np.inf]], np.float32)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("clients")
    models = {
        "m": onnx_models.identity(),
        "add": onnx_models.add("INT32"),
        "half": onnx_models.identity("FP16"),
        "text": onnx_models.identity("BYTES", ("n", 2)),
        "broken": onnx_models.identity(),
    }
    flags = []
    for name, model in models.items():
        flags += ["--model", f"{name}={onnx_models.write(model, folder / f'{name}.onnx')}"]
    with server(folder / "s", "--allow-repository-control", *flags) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def client(running: ServerProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{running.port}") as client:
        yield client


def tensor(array: np.ndarray, name: str = "x", datatype: str = "FP32", *, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


# ------------------------------------------------------------------------------------------------ Triton's client
def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m", "1")
    assert not client.is_model_ready("zz")
    assert client.get_server_metadata()["name"] == "modelpier"
    assert client.get_model_metadata("add", "1")["inputs"][0] == {"name": "a", "datatype": "INT32", "shape": [-1, 3]}


def test_configuration(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("add")
    assert config["max_batch_size"] > 0
    assert [(i["name"], i["data_type"], i["dims"]) for i in config["input"]] == [
        ("a", "TYPE_INT32", [3]),
        ("b", "TYPE_INT32", [3]),
    ]
    assert client.get_model_config("text", "1")["input"][0]["data_type"] == "TYPE_STRING"


def test_statistics(client: triton.InferenceServerClient) -> None:
    (before,) = client.get_inference_statistics("m", "1")["model_stats"]
    client.infer("m", [tensor(X)])
    (after,) = client.get_inference_statistics("m")["model_stats"]
    assert after["inference_count"] - before["inference_count"] == 2
    assert after["execution_count"] - before["execution_count"] == 1
    gained = after["inference_stats"]["success"]["ns"] - before["inference_stats"]["success"]["ns"]
    assert gained > 0
    assert {s["name"] for s in client.get_inference_statistics()["model_stats"]} >= {"m", "add", "half", "text"}


@pytest.mark.parametrize("request_encoding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_encoding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_infer(
    client: triton.InferenceServerClient, request_encoding: str | None, response_encoding: str | None, binary: bool
) -> None:
    array = X if binary else X[:1]
    result = client.infer(
        "m",
        [tensor(array, binary=binary)],
        outputs=[triton.InferRequestedOutput("y", binary_data=binary)],
        request_id="7",
        request_compression_algorithm=request_encoding,
        response_compression_algorithm=response_encoding,
    )
    assert np.array_equal(result.as_numpy("y"), array)
    assert result.get_response()["id"] == "7"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compression_both_ways(client: triton.InferenceServerClient, algorithm: str, *, binary: bool) -> None:
    """As Triton's client asks for it; the answer is long enough to be compressed, and gets smaller."""
    array = np.tile(np.array([[1, 2.5, -3]], np.float32), (2000, 1))
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    result = client.infer(
        "m",
        [tensor(array, binary=binary)],
        outputs=outputs,
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert np.array_equal(result.as_numpy("y"), array)


def test_compressed_answers_are_smaller(running: ServerProcess, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(infer_body(2000))
    where, url = tmp_path / "answer", f"http://127.0.0.1:{running.port}/v2/models/m/infer"
    command = [
        "curl",
        "-sS",
        "--compressed",
        "-o",
        str(where),
        "-w",
        "%{size_download}",
        "--data-binary",
        f"@{body}",
        url,
    ]
    size = int(subprocess.run(command, check=True, capture_output=True, timeout=30).stdout)
    assert len(json.loads(where.read_bytes())["outputs"][0]["data"]) == 6000
    assert size < where.stat().st_size / 2


def test_half_precision_and_text(client: triton.InferenceServerClient) -> None:
    half = X.astype(np.float16)
    assert np.array_equal(client.infer("half", [tensor(half, datatype="FP16")]).as_numpy("y"), half)
    words = np.array([["a", "grün"], ["", "c"]], np.object_)
    result = client.infer("text", [tensor(words, datatype="BYTES")])
    assert [word.decode() for word in result.as_numpy("y").ravel()] == ["a", "grün", "", "c"]
    plain = client.infer(
        "text", [tensor(words, datatype="BYTES", binary=False)], outputs=[triton.InferRequestedOutput("y", False)]
    )
    assert plain.as_numpy("y").tolist() == words.tolist()


def test_several_inputs_and_a_choice_of_outputs(client: triton.InferenceServerClient) -> None:
    ones = np.ones((1, 3), np.int32)
    inputs = [tensor(ones * 3, "a", "INT32"), tensor(ones, "b", "INT32", binary=False)]
    result = client.infer("add", inputs, outputs=[triton.InferRequestedOutput("difference")])
    assert result.as_numpy("difference").tolist() == [[2, 2, 2]]
    assert result.as_numpy("sum") is None


def test_classification(client: triton.InferenceServerClient) -> None:
    for binary in (True, False):
        wanted = [triton.InferRequestedOutput("y", binary_data=binary, class_count=2)]
        found = client.infer("m", [tensor(X)], outputs=wanted).as_numpy("y")
        words = [word.decode() if binary else word for word in found.ravel()]
        assert (found.shape, words) == ((2, 2), ["2.500000:1", "1.000000:0", "inf:2", "5.000000:1"])


def test_async_infer(client: triton.InferenceServerClient) -> None:
    waiting = [client.async_infer("m", [tensor(X)]) for _ in range(4)]
    assert all(np.array_equal(one.get_result().as_numpy("y"), X) for one in waiting)


def test_errors_are_the_clients_own(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"inputs\[0\].shape") as wrong:
        client.infer("m", [tensor(X[:, :2])])
    assert wrong.value.status() == "400"
    with pytest.raises(InferenceServerException, match="NaN or infinity") as infinite:
        client.infer("m", [tensor(X)], outputs=[triton.InferRequestedOutput("y", binary_data=False)])
    assert infinite.value.status() == "400"
    with pytest.raises(InferenceServerException, match="zz") as unknown:
        client.get_model_config("zz")
    assert unknown.value.status() == "404"


def test_the_repository(client: triton.InferenceServerClient, running: ServerProcess, tmp_path: Path) -> None:
    def states() -> dict[str, str]:
        return {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}

    assert states()["broken"] == "READY"
    client.unload_model("broken")
    assert not client.is_model_ready("broken")
    client.load_model("broken")
    assert client.is_model_ready("broken")
    arguments = running.process.args
    assert isinstance(arguments, list)
    (path,) = [str(a).partition("=")[2] for a in arguments if str(a).startswith("broken=")]
    good = Path(path).read_bytes()
    Path(path).write_bytes(b"no model")
    with pytest.raises(InferenceServerException, match="ModelInvalid"):
        client.load_model("broken")
    assert client.is_model_ready("broken")  # the old one goes on
    Path(path).write_bytes(good)
    client.load_model("broken")
    with pytest.raises(InferenceServerException, match="config"):
        client.load_model("m", config="{}")
    assert running.process.poll() is None


async def test_the_aio_client(running: ServerProcess) -> None:
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{running.port}") as client:
        assert await client.is_server_ready()
        assert await client.is_model_ready("m")
        assert (await client.get_model_config("m"))["name"] == "m"
        assert (await client.get_inference_statistics("m"))["model_stats"][0]["name"] == "m"
        assert "m" in {entry["name"] for entry in await client.get_model_repository_index()}
        result = await client.infer(
            "m", [tensor(X)], request_compression_algorithm="gzip", response_compression_algorithm="gzip"
        )
        assert np.array_equal(result.as_numpy("y"), X)


# ------------------------------------------------------------------------------------------------ curl
def curl(running: ServerProcess, path: str, *flags: str) -> object:
    command = ["curl", "-sS", "--fail-with-body", "--max-time", "20", f"http://127.0.0.1:{running.port}{path}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def test_curl(running: ServerProcess, tmp_path: Path) -> None:
    infer = '{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}'
    assert curl(running, "/v2/models/m/infer", "-d", infer)["outputs"][0]["data"] == [1, 2, 3]  # type: ignore[index]
    assert curl(running, "/v1/models/m:predict", "-d", '{"instances":[[1,2,3]]}') == {"predictions": [[1, 2, 3]]}
    assert curl(running, "/model", "-d", '{"model_name":"m","input_data":[[1,2,3]]}') == {"output_data": [[1, 2, 3]]}
    generated = curl(running, "/v2/models/text/generate", "-d", '{"text_input":["a","b"]}')
    assert generated == {"model_name": "text", "model_version": "1", "y": ["a", "b"]}
    assert curl(running, "/", "-H", "Accept: */*") == {"status": "alive"}
    target = ("-H", "X-Amzn-SageMaker-Target-Model: m")
    assert curl(running, "/invocations", *target, "-d", '{"instances":[[1,2,3]]}') == {"predictions": [[1, 2, 3]]}


def test_curl_with_a_large_body_waits_for_100_continue(running: ServerProcess, tmp_path: Path) -> None:
    rows = 200_000
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"instances": [[0.5, 1, 2]] * rows}))
    answer = curl(running, "/v1/models/m:predict", "-H", "Expect: 100-continue", "--data-binary", f"@{body}")
    assert len(answer["predictions"]) == rows  # type: ignore[index]


def test_curl_generate_stream(running: ServerProcess) -> None:
    command = ["curl", "-sSN", "--max-time", "20", f"http://127.0.0.1:{running.port}/v2/models/text/generate_stream"]
    done = subprocess.run([*command, "-d", '{"text_input":["a","b"]}'], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("data: {")
    assert json.loads(done.stdout.removeprefix("data: "))["y"] == ["a", "b"]


# ------------------------------------------------------------------------------------------------ where it runs
def test_vertex_ai_says_where_by_environment(tmp_path: Path, identity: Path) -> None:
    environment = {"AIP_HEALTH_ROUTE": "/v1/endpoints/7", "AIP_PREDICT_ROUTE": "/v1/endpoints/7:predict"}
    with server(tmp_path / "s", "--model", f"m={identity}", environment=environment) as running:
        running.wait_ready()
        assert running.call("GET", "/v1/endpoints/7")[0] == 200
        body = b'{"instances": [[1, 2, 3]], "parameters": {}}'
        assert running.call("POST", "/v1/endpoints/7:predict", body) == (200, b'{"predictions":[[1.0,2.0,3.0]]}')


def test_in_a_pod_the_plan_decides(tmp_path: Path, volume: PlanVolume) -> None:
    with server(tmp_path / "s", environment=volume.environment) as running:
        wait_for(lambda: running.call("GET", LIVE_PATH)[0] == 200)
        status, answer = running.call("POST", "/v2/repository/models/m/load")
        assert (status, b"a serving plan decides" in answer) == (403, True)
        assert running.call("POST", "/v2/repository/index") == (200, b"[]")
