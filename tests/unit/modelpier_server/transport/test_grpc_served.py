"""The gRPC port: what is served, and how it is."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from grpc import StatusCode

from modelpier_server.protocol.grpc.generated import inference_pb2 as pb
from modelpier_server.protocol.grpc.generated.health_pb2 import HealthCheckResponse
from modelpier_server.transport import Access, Extras
from support import onnx_models
from support.grpc_serving import Running, one, refused, row, running, told
from support.recorded_control import Recorded
from support.serving import planned, servable, until


# ---------------------------------------------------------------------------------------------- what is served
async def test_what_is_ready(tmp_path: Path, identity: Running) -> None:
    client, shelf = identity.client, identity.shelf

    async def asked(name: str, request: Message, kind: type[Message]) -> bool:
        answer = await client.call(name, request, kind)
        return bool(answer.ready)

    assert (await client.call("ServerLive", b"", pb.ServerLiveResponse)).live
    assert await asked("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse)
    assert await asked("ModelReady", pb.ModelReadyRequest(name="m"), pb.ModelReadyResponse)
    assert not await asked("ModelReady", pb.ModelReadyRequest(name="m", version="2"), pb.ModelReadyResponse)
    assert not await asked("ModelReady", pb.ModelReadyRequest(name="q"), pb.ModelReadyResponse)
    shelf.draining = True
    assert (await client.call("ServerLive", b"", pb.ServerLiveResponse)).live
    assert not await asked("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse)


async def test_metadata_takes_no_turn_of_the_weights(identity: Running) -> None:
    answer = await identity.client.call("ModelMetadata", pb.ModelMetadataRequest(name="m"), pb.ModelMetadataResponse)
    assert (answer.name, list(answer.versions), answer.platform) == ("m", ["1"], "onnx_onnxv1")
    assert [(t.name, t.datatype, list(t.shape)) for t in answer.inputs] == [("x", "FP32", [-1, 3])]
    config = await identity.client.call("ModelConfig", pb.ModelConfigRequest(name="m"), pb.ModelConfigResponse)
    assert config.config.name == "m"
    assert identity.shelf.found == 0
    identity.shelf.pending.add("p")
    for name, code in (("q", StatusCode.NOT_FOUND), ("p", StatusCode.UNAVAILABLE)):
        for method, kind in (
            ("ModelMetadata", pb.ModelMetadataRequest),
            ("ModelConfig", pb.ModelConfigRequest),
            ("ModelStatistics", pb.ModelStatisticsRequest),
        ):
            assert (await refused(identity.client.call(method, kind(name=name)))).code() is code


async def test_configuration_of_models_with_and_without_batches(tmp_path: Path) -> None:
    batched = servable(onnx_models.mlp(), tmp_path, planned("b"))
    mixed = servable(onnx_models.cumsum_rows(), tmp_path, planned("c", version="blue"))
    async with running(batched, mixed) as state:

        async def config(name: str) -> pb.ModelConfig:
            request = pb.ModelConfigRequest(name=name)
            answer = await state.client.call("ModelConfig", request, pb.ModelConfigResponse)
            found: pb.ModelConfig = answer.config
            return found

        found = await config("b")
        assert found.max_batch_size == batched.finding.max_rows > 1
        assert (list(found.input[0].dims), list(found.output[0].dims)) == ([32], [4])
        assert (found.input[0].data_type, found.backend) == (pb.TYPE_FP32, "onnxruntime")
        assert (found.WhichOneof("scheduling_choice"), list(found.version_policy.specific.versions)) == (
            "dynamic_batching",
            [1],
        )
        found = await config("c")
        assert (found.max_batch_size, list(found.input[0].dims)) == (0, [-1, 3])
        assert (found.WhichOneof("scheduling_choice"), found.version_policy.latest.num_versions) == (None, 1)
        assert "depends on the other rows" in found.parameters["batching"].string_value


async def test_statistics_count(tmp_path: Path) -> None:
    served = servable(onnx_models.identity(), tmp_path)
    async with running(served) as state:
        state.metrics._models[("m", "1")] = served._metrics
        await state.client.infer(one(np.zeros((2, 3), np.float32)))
        await refused(state.client.infer(row(1)))
        answer = await state.client.call("ModelStatistics", pb.ModelStatisticsRequest(), pb.ModelStatisticsResponse)
        (found,) = answer.model_stats
        assert (found.name, found.version, found.execution_count) == ("m", "1", 1)
        assert (found.inference_stats.success.count, found.inference_stats.fail.count) == (1, 1)
        assert found.inference_stats.success.ns > found.inference_stats.compute_infer.ns > 0
        assert found.last_inference > 0
        assert sum(batch.compute_infer.count for batch in found.batch_stats) == 1


async def test_the_index(identity: Running) -> None:
    answer = await identity.client.call("RepositoryIndex", b"", pb.RepositoryIndexResponse)
    assert [(m.name, m.version, m.state, m.reason) for m in answer.models] == [("m", "1", "READY", "")]


async def test_loading_and_unloading_where_it_is_allowed(tmp_path: Path) -> None:
    control = Recorded()
    served = servable(onnx_models.identity(), tmp_path)
    async with running(served, extras=Extras(repository=Access(control))) as state:
        answer = await state.client.call("RepositoryIndex", b"", pb.RepositoryIndexResponse)
        assert [(m.name, m.state, m.reason) for m in answer.models] == [
            ("m", "READY", ""),
            ("gone", "UNAVAILABLE", "unloaded"),
        ]
        request = pb.RepositoryIndexRequest(ready=True)
        answer = await state.client.call("RepositoryIndex", request, pb.RepositoryIndexResponse)
        assert [m.name for m in answer.models] == ["m"]
        load = pb.RepositoryModelLoadRequest(model_name="gone")
        await state.client.call("RepositoryModelLoad", load, pb.RepositoryModelLoadResponse)
        unload = pb.RepositoryModelUnloadRequest(model_name="m")
        await state.client.call("RepositoryModelUnload", unload, pb.RepositoryModelUnloadResponse)
        assert control.asked == [("load", "gone"), ("unload", "m")]
        load.parameters["config"].string_param = "{}"
        error = await refused(state.client.call("RepositoryModelLoad", load))
        assert (error.code(), "parameters.config" in told(error)) == (StatusCode.INVALID_ARGUMENT, True)
        error = await refused(state.client.call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="zz")))
        assert error.code() is StatusCode.NOT_FOUND


# ---------------------------------------------------------------------------------------------- health
async def test_health_by_name(identity: Running) -> None:
    check = identity.client.check
    names = ("", "inference.GRPCInferenceService", "m")
    assert [await check(name) for name in names] == ["SERVING"] * 3
    identity.shelf.ready = False
    assert [await check(name) for name in names] == ["NOT_SERVING", "NOT_SERVING", "SERVING"]
    identity.shelf.draining = True
    assert await check("m") == "NOT_SERVING"
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await check("q")
    assert failure.value.code() is StatusCode.NOT_FOUND


async def test_health_is_watched(identity: Running) -> None:
    server, model, unknown = (identity.client.watch(name) for name in ("", "m", "q"))
    first = [(await watch.read()).status for watch in (server, model, unknown)]
    known = HealthCheckResponse
    assert first == [known.SERVING, known.SERVING, known.SERVICE_UNKNOWN]
    identity.shelf.draining = True
    for wake in identity.shelf.watchers:
        wake()
    assert [(await watch.read()).status for watch in (server, model)] == [known.NOT_SERVING] * 2
    unknown.cancel()
    await until(lambda: len(identity.shelf.watchers) == 2)
    await identity.stop()
    for watch in (server, model):
        assert await watch.code() is StatusCode.UNAVAILABLE
