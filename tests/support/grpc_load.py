"""Calls of ModelInfer as fast as they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from support.grpc_serving import SERVICE, row
from support.serving import until

CONNECTIONS = 4
CALLERS = 4
"""Per connection."""


class Load:
    """For a model of one input `x` [n, 3]."""

    def __init__(self) -> None:
        self._end = False
        self.answered = 0
        self.failed: list[str] = []

    async def more(self, count: int) -> None:
        """Waits until so many more are answered."""
        enough = self.answered + count
        await until(lambda: self.answered >= enough, 60)

    @asynccontextmanager
    async def on(self, port: int) -> AsyncIterator[None]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(CONNECTIONS)]
        callers = [asyncio.ensure_future(self._call(channel)) for channel in channels * CALLERS]
        try:
            yield
        finally:
            self._end = True
            await asyncio.gather(*callers)
            for channel in channels:
                await channel.close()

    async def _call(self, channel: grpc.aio.Channel) -> None:
        infer: Any = channel.unary_unary(f"{SERVICE}ModelInfer")
        request = row(1, 2, 3).SerializeToString()
        while not self._end:
            try:
                await infer(request, timeout=30)
                self.answered += 1
            except grpc.aio.AioRpcError as error:
                self.failed.append(f"{error.code()}: {error.details()}")
