"""The convergence suite over the API in memory, where hours pass in milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from convergence.machine import Convergence
from modelpier_operator.cluster.client import Api
from support.api import MemoryApi
from support.faults import Faulty
from support.operator_rig import Rig
from support.virtual_time import VirtualLoop

T = TypeVar("T")
pytestmark = pytest.mark.timeout(600)  # a minute of one processor, which others may want too


class MemoryGround:
    def __init__(self) -> None:
        self.users = MemoryApi()
        self._runner = asyncio.Runner(loop_factory=VirtualLoop)

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(doing)

    def connect(self) -> Api:
        return self.users.connect()

    async def second(self, rig: Rig, api: Faulty) -> None:
        await asyncio.sleep(1.0)

    def close(self) -> None:
        self._runner.close()


class MemoryConvergence(Convergence):
    def ground(self) -> MemoryGround:
        return MemoryGround()


TestConvergence = MemoryConvergence.TestCase
TestConvergence.settings = settings(
    max_examples=100,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
