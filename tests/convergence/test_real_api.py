"""The convergence suite over a real API server: the same users, faults and crashes, and the server's own opinion of
applies.

Pods and their servers are simulated; the operator's clock runs with the World's seconds, so a nudge takes the place of
its timers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from convergence.machine import NAMESPACE, Convergence, idle
from modelpier_cluster import ControlPlane
from modelpier_operator.cluster.client import Api, Client
from modelpier_operator.telemetry import Telemetry
from support.control_plane import missing, prepared
from support.faults import Faulty
from support.operator_rig import Rig
from support.real_api import ApiServer

pytestmark = [pytest.mark.control_plane, pytest.mark.skipif(bool(missing()), reason=missing())]
T = TypeVar("T")
KEPT = ("default", "kube-root-ca.crt")


class RealGround:
    def __init__(self, control_plane: ControlPlane) -> None:
        self.users = ApiServer(control_plane.kubeconfig)
        self._runner = asyncio.Runner()
        self._client = Client(self.users.access, user_agent="modelpier-operator", telemetry=Telemetry())
        self._runner.run(self._open())

    async def _open(self) -> None:
        await self._client.__aenter__()

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(doing)

    def connect(self) -> Api:
        return self._client

    async def second(self, rig: Rig, api: Faulty) -> None:
        for key in rig.caches.deployments:
            rig.queue.add(key)
        await idle(rig, api)

    def close(self) -> None:
        for plural in ("modeldeployments", "services", "configmaps", "networkpolicies", "serviceaccounts", "pods"):
            for item in self.users.list(plural, NAMESPACE):
                if item["metadata"]["name"] not in KEPT:
                    self.users.delete(plural, NAMESPACE, item["metadata"]["name"])
        self.users.collect_garbage()
        self._runner.run(self._client.__aexit__())
        self._runner.close()
        self.users.close()


class RealConvergence(Convergence):
    control_plane: ClassVar[ControlPlane]
    settling = 160
    stride = 4

    def ground(self) -> RealGround:
        return RealGround(self.control_plane)


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with prepared() as made:
        made.kubectl("create", "namespace", NAMESPACE)
        # Without a controller manager nobody else makes it, and no pod is admitted without it.
        made.kubectl("create", "serviceaccount", "default", "--namespace", NAMESPACE)
        yield made


@pytest.mark.timeout(600)
def test_converges_over_a_real_api_server(control_plane: ControlPlane) -> None:
    RealConvergence.control_plane = control_plane
    run_state_machine_as_test(
        RealConvergence,
        settings=settings(
            max_examples=3,
            stateful_step_count=8,
            deadline=None,
            derandomize=True,
            # A step takes a second here: a failure is told as it is rather than made smaller.
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
