"""The gRPC port of the real server, as clients that others wrote see it."""

from __future__ import annotations

import asyncio
import queue
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.utils import InferenceServerException

from support import onnx_models
from support.grpc_load import Load
from support.relay import Relay
from support.server_process import PlanVolume, ServerProcess, server, wait_for

DATATYPES = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT64": np.array([[-(2**63), 2**63 - 1]]),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "FP16": np.array([[0.5, np.inf]], np.float16),
    "BF16": np.array([[0.5, -2]], ml_dtypes.bfloat16),
    "FP32": np.array([[0.1, np.nan]], np.float32),
    "FP64": np.array([[0.1, -1e300]]),
    "BYTES": np.array([["h\u00e9", ""]], np.object_),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("grpc")
    flags: list[str] = []
    for name in DATATYPES:
        path = onnx_models.write(onnx_models.identity(name, ("n", 2)), folder / f"{name}.onnx")
        flags += ["--model", f"{name.lower()}={path}"]
    path = onnx_models.write(onnx_models.add(), folder / "add.onnx")
    with server(folder / "s", "--model", f"add={path}", *flags, grpc=True) as process:
        process.wait_ready()
        yield process


@pytest.fixture
def client(running: ServerProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{running.grpc}") as client:
        yield client


@pytest.fixture
def channel(running: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc}") as channel:
        yield channel


def given(kind: Any, array: np.ndarray, datatype: str = "FP32", name: str = "x") -> Any:
    tensor = kind.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def pair(kind: Any) -> list[Any]:
    return [given(kind, np.full((2, 3), value, np.float32), name=name) for name, value in (("a", 5), ("b", 3))]


# ---------------------------------------------------------------------------------------------- Triton's client
@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_every_datatype(client: triton.InferenceServerClient, datatype: str, compression: str | None) -> None:
    array = DATATYPES[datatype]
    tensor = triton.InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    found = client.infer(datatype.lower(), [tensor], compression_algorithm=compression).as_numpy("y")
    if datatype == "BYTES":
        assert [value.decode() for value in found.ravel()] == array.ravel().tolist()
    else:
        assert np.array_equal(found, array, equal_nan=datatype.startswith("FP"))


def test_all_that_the_client_asks(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert [client.is_model_ready(name) for name in ("add", "nothing")] == [True, False]
    assert client.get_server_metadata().name == "modelpier"
    metadata = client.get_model_metadata("add", as_json=True)
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["a", "b"]
    assert client.get_model_config("add").config.input[0].name == "a"
    result = client.infer("add", pair(triton), request_id="7", outputs=[triton.InferRequestedOutput("difference")])
    answer = result.get_response()
    assert (answer.id, answer.model_version, [output.name for output in answer.outputs]) == ("7", "1", ["difference"])
    assert result.as_numpy("difference").tolist() == [[2, 2, 2]] * 2
    (found,) = client.get_inference_statistics("add").model_stats
    assert found.inference_stats.success.count >= 1
    assert "add" in [model.name for model in client.get_model_repository_index().models]


def test_what_the_client_is_refused(client: triton.InferenceServerClient) -> None:
    for code, call in (
        ("NOT_FOUND", lambda: client.get_model_metadata("nothing")),
        ("NOT_FOUND", lambda: client.infer("add", pair(triton), model_version="2")),
        ("INVALID_ARGUMENT", lambda: client.infer("add", pair(triton)[:1])),
        ("PERMISSION_DENIED", lambda: client.load_model("add")),
        ("PERMISSION_DENIED", lambda: client.unload_model("add")),
        ("UNIMPLEMENTED", client.get_trace_settings),
    ):
        with pytest.raises(InferenceServerException) as failure:
            call()
        assert failure.value.status() == f"StatusCode.{code}"
        assert failure.value.message()


def test_streams_and_callbacks(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.async_infer("add", pair(triton), callback=lambda result, error: answers.put((result, error)))
    result, error = answers.get(timeout=10)
    assert (error, result.as_numpy("sum").tolist()) == (None, [[8, 8, 8]] * 2)
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(20):
        name = "nothing" if number == 7 else "add"
        client.async_stream_infer(name, pair(triton), request_id=str(number))
    found = [answers.get(timeout=10) for _ in range(20)]
    client.stop_stream()
    assert [number for number, (_, error) in enumerate(found) if error] == [7]
    ids = [result.get_response().id for result, _ in found if result is not None]
    assert ids == [str(number) for number in range(20) if number != 7]


async def test_the_client_of_asyncio(running: ServerProcess) -> None:
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{running.grpc}") as client:
        assert await client.is_model_ready("add")
        results = await asyncio.gather(*(client.infer("add", pair(triton_aio)) for _ in range(20)))
        assert all(result.as_numpy("sum").tolist() == [[8, 8, 8]] * 2 for result in results)

        async def requests() -> Any:
            for number in range(5):
                yield {"model_name": "add", "inputs": pair(triton_aio), "request_id": str(number)}

        found = [answer async for answer in client.stream_infer(requests())]
        assert [error for _, error in found] == [None] * 5
        assert [result.get_response().id for result, _ in found] == list("01234")


# ---------------------------------------------------------------------------------------------- health, reflection
def test_the_client_of_health(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "inference.GRPCInferenceService", "add"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as failure:
        health.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=10)
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND
    watch = health.Watch(health_pb2.HealthCheckRequest(service="add"), timeout=10)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_the_client_of_reflection(channel: grpc.Channel) -> None:
    """What a client learns from the server alone is enough to call it."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    }
    pool = DescriptorPool(database)
    for service in database.get_services():
        assert pool.FindServiceByName(service).methods
    method = pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name["ModelInfer"]
    request = GetMessageClass(method.input_type)(model_name="fp32")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    tensor.contents.fp32_contents.extend([1, 2])
    answer: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(
        request.SerializeToString(), timeout=10
    )
    found = GetMessageClass(method.output_type).FromString(answer)
    assert list(found.outputs[0].contents.fp32_contents) == [1, 2]


# ---------------------------------------------------------------------------------------------- the process
def test_no_grpc_without_being_asked(tmp_path: Path, identity: Path) -> None:
    with server(tmp_path / "s", "--model", f"m={identity}") as process:
        process.wait_ready()
        assert "grpc" not in process.output
        maps = Path(f"/proc/{process.process.pid}/maps").read_text()
        assert "cygrpc" not in maps


def test_a_pod_listens_for_grpc(tmp_path: Path, volume: PlanVolume) -> None:
    with server(tmp_path / "s", environment=volume.environment) as process:
        wait_for(lambda: f'"grpc_port":{process.grpc}' in process.output)
        with triton.InferenceServerClient(f"127.0.0.1:{process.grpc}") as client:
            assert client.is_server_live()
            assert not client.is_server_ready()


def test_a_port_that_is_taken(tmp_path: Path, identity: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with server(tmp_path / "s", "--model", f"m={identity}", "--grpc-port", str(port)) as process:
            assert process.wait(20) == 69
            assert f"127.0.0.1:{port}: cannot listen; choose another --http-port" in process.output


def test_health_tells_of_the_end_at_once(tmp_path: Path, identity: Path) -> None:
    with server(tmp_path / "s", "--model", f"m={identity}", "--drain-accept-seconds", "1", grpc=True) as process:
        process.wait_ready()
        told: Any = []
        with grpc.insecure_channel(f"127.0.0.1:{process.grpc}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=20)

            def listen() -> None:
                try:
                    told.extend(answer.status for answer in watch)
                except grpc.RpcError as error:
                    told.append(error.code())

            listener = threading.Thread(target=listen)
            listener.start()
            wait_for(lambda: told)
            process.signal(signal.SIGTERM)
            assert process.wait() == 0, process.output
            listener.join(10)
        states = health_pb2.HealthCheckResponse
        assert told == [states.SERVING, states.NOT_SERVING, grpc.StatusCode.UNAVAILABLE]


async def test_no_call_is_lost_under_load(tmp_path: Path, identity: Path) -> None:
    """Clients that never pause, over connections that a Service leads elsewhere once the pod is no endpoint."""
    with (
        server(tmp_path / "next", "--model", f"m={identity}", grpc=True) as next_one,
        server(tmp_path / "s", "--model", f"m={identity}", "--drain-accept-seconds", "2", grpc=True) as process,
    ):
        for each in (next_one, process):
            each.wait_ready()
        service = Relay(process.grpc)
        load = Load()
        async with service.listening() as port, load.on(port):
            await load.more(200)
            process.signal(signal.SIGTERM)
            await asyncio.sleep(1.0)  # endpoints take time to propagate
            service.target = next_one.grpc
            assert await asyncio.to_thread(process.wait, 60) == 0, process.output
            await load.more(200)
        assert load.failed == []
        assert "still running" not in process.output
