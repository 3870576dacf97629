"""These tests run on the event loop that the server runs on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from support import grpc_serving, onnx_models
from support.serving import servable


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def identity(tmp_path: Path) -> AsyncIterator[grpc_serving.Running]:
    """y = x over gRPC."""
    async with grpc_serving.running(servable(onnx_models.identity(), tmp_path)) as state:
        yield state
