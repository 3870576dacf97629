"""The gRPC port: its beginning and its end."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from grpc import StatusCode

from modelpier_server.records import Recorder
from modelpier_server.transport import Extras
from modelpier_server.transport.grpc import GrpcLimits, serve
from support import onnx_models
from support.grpc_load import Load
from support.grpc_serving import Running, floats, refused, row, running
from support.relay import Relay
from support.serving import gated, servable, until


async def test_what_has_come_is_answered(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served) as state:
        calls = [state.client.infer(row(i, i, i)) for i in range(4)]
        await until(lambda: served.in_flight == 4)
        stopping = asyncio.ensure_future(state.stop(10))
        await asyncio.sleep(0.05)
        session.gate.set()
        assert [floats(await call)[0] for call in calls] == [0, 1, 2, 3]
        assert await stopping


async def test_calls_that_take_too_long_are_lost_and_told_of(tmp_path: Path) -> None:
    served, session = gated(onnx_models.identity(), tmp_path)
    async with running(served) as state:
        call = state.client.infer(row(1, 2, 3))
        await until(lambda: served.in_flight == 1)
        assert not await state.stop(0.4)
        assert (await refused(call)).code() is StatusCode.UNAVAILABLE
        await until(lambda: served.in_flight == 0)
        session.gate.set()


async def test_streams_that_are_not_used_end(identity: Running) -> None:
    stream = identity.client.stream()
    await stream.write(row(1, 2, 3))
    await stream.read()
    assert await identity.stop(10)
    assert await stream.code() is StatusCode.UNAVAILABLE


async def test_no_call_is_lost_where_clients_have_somewhere_else_to_go(tmp_path: Path) -> None:
    """As in Kubernetes: connections come through a Service, which leads new ones elsewhere."""
    limits = GrpcLimits(settling=1.6)
    old, new = (servable(onnx_models.identity(), tmp_path / name) for name in ("old", "new"))
    async with running(old, limits=limits) as going, running(new, limits=limits) as staying:
        service = Relay(going.server.port)
        load = Load()
        async with service.listening() as port, load.on(port):
            await load.more(100)
            service.target = staying.server.port
            assert await going.stop(15, patient=True)
            await load.more(100)
        assert load.failed == []


async def test_a_port_that_is_taken(identity: Running) -> None:
    with pytest.raises(OSError, match="cannot listen"):
        await serve("127.0.0.1", identity.server.port, identity.shelf, identity.metrics)


async def test_the_access_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "modelpier_server.access")
    async with running(servable(onnx_models.identity(), tmp_path), extras=Extras(recorder=Recorder(1.0))) as state:
        await state.client.infer(row(1, 2, 3))
        await refused(state.client.infer(row(1)))
        lines = [vars(record) for record in caplog.records]
        assert [(line["method"], line["code"]) for line in lines] == [
            ("ModelInfer", "OK"),
            ("ModelInfer", "INVALID_ARGUMENT"),
        ]
        assert all((line["model"], line["version"], line["client"]) == ("m", "1", "127.0.0.1") for line in lines)
        assert lines[0]["request_bytes"] > 20
        assert lines[0]["response_bytes"] > 20
