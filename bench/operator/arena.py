"""A control plane of its own for each run, and readings of what everything in it costs. Used by the phases."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import processes
from bench.operator import kinds
from bench.operator.api import Access, Api, ApiError
from bench.operator.contestants import Contestant, RunningContestant
from bench.operator.requests import Traffic
from bench.processes import Clock

from modelpier_cluster import ControlPlane, audit

LEAD_SECONDS = 60.0
SAMPLE_SECONDS = 0.25
QUIET_SAMPLES = 8
"""So many samples in a row without work make it quiet: two seconds."""
IDLE_CPU = 0.03
"""CPU seconds per sample of a contestant that only renews its Lease."""


@dataclass(frozen=True)
class Quiet:
    """`since`: the monotonic moment from which nothing more happened; `clock`: a reading after it."""

    since: float
    clock: Clock


class Arena:
    """`async with arena(crd, folder)`."""

    def __init__(self, api: Api, plane: ControlPlane, logs: Path) -> None:
        self.api = api
        self.plane = plane
        self._logs = logs

    @property
    def kubeconfig(self) -> Path:
        return self.plane.kubeconfig

    def clock(self, **more: int) -> Clock:
        """CPU of etcd, the API server, this process and `more` (pids by name)."""
        return Clock.now(time.monotonic(), {**_pids(self.plane), "bench": os.getpid(), **more})

    def position(self) -> int:
        """Where the audit log ends now, for `traffic`."""
        return self.plane.audit_log.stat().st_size

    async def traffic(self, since: int) -> Traffic:
        """What the contestant has asked for since a position."""
        events, _ = await asyncio.to_thread(audit.events, self.plane.audit_log, since)
        return Traffic.of(events)

    def resident(self) -> dict[str, float]:
        return {name: processes.resident_mebibytes(pid) for name, pid in _pids(self.plane).items()}

    async def start(self, contestant: Contestant) -> RunningContestant:
        """Start it and wait until it holds the Lease."""
        before = await self._lease_renewals()
        running = RunningContestant(contestant, self.kubeconfig, self._logs / f"{contestant.name}.log")
        deadline = time.monotonic() + LEAD_SECONDS
        while (now := await self._lease_renewals()) == before or not now[0]:
            running.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{contestant.name} did not take the Lease {kinds.LEASE} in {LEAD_SECONDS:.0f} s")
            await asyncio.sleep(SAMPLE_SECONDS)
        return running

    async def _lease_renewals(self) -> tuple[str, str]:
        """Holder and time of the last renewal; empty without a Lease."""
        try:
            spec = (await self.api.send("GET", f"{kinds.LEASES}/{kinds.LEASE}"))["spec"]
        except ApiError as error:
            if error.status != 404:
                raise
            return "", ""
        return spec.get("holderIdentity") or "", spec.get("renewTime") or ""

    async def quiet(self, running: RunningContestant, seconds: float) -> Quiet:
        """Wait until the contestant computes nothing, and so writes nothing; raises TimeoutError."""
        deadline = time.monotonic() + seconds
        since, samples, cpu = time.monotonic(), 0, processes.cpu_seconds(running.pid)
        while samples < QUIET_SAMPLES:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{running.name} was not quiet after {seconds:.0f} s; see {running.log}")
            await asyncio.sleep(SAMPLE_SECONDS)
            running.check()
            now = processes.cpu_seconds(running.pid)
            if now - cpu < IDLE_CPU:
                samples += 1
            else:
                since, samples = time.monotonic(), 0
            cpu = now
        return Quiet(since, self.clock(contestant=running.pid))


def _pids(plane: ControlPlane) -> Mapping[str, int]:
    """The components' process ids, as their supervisor noted them when it started each."""
    lines = (line.split() for line in (plane.folder.logs / "events").read_text().splitlines())
    started = {name: int(pid) for event, name, pid in lines if event == "started"}
    return {name: started[name] for name in ("apiserver", "etcd")}


@asynccontextmanager
async def arena(crd: str, logs: Path) -> AsyncIterator[Arena]:
    """A fresh control plane with the CRD (YAML text) and the namespaces. No controller manager: only ours works."""
    plane = ControlPlane()
    try:
        await asyncio.to_thread(plane.start)
        await asyncio.to_thread(plane.kubectl, "apply", "-f", "-", stdin=crd)
        name = "customresourcedefinition/modeldeployments.modelpier.dev"
        await asyncio.to_thread(plane.kubectl, "wait", "--for=condition=Established", name, "--timeout=30s")
        for namespace in (kinds.NAMESPACE, kinds.OPERATOR_NAMESPACE):
            await asyncio.to_thread(plane.kubectl, "create", "namespace", namespace)
        async with Api(Access.of(plane.kubeconfig)) as api:
            yield Arena(api, plane, logs)
    finally:
        await asyncio.to_thread(plane.stop)
