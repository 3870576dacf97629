"""gRPC's own health protocol: the server as "" or by the name of a service, each model by its name.

Source: `health.proto` and the "GRPC Health Checking Protocol" of github.com/grpc/grpc.
"""

from __future__ import annotations

import asyncio

from modelpier_server.contract import ModelState
from modelpier_server.errors import InvalidRequest, NotFound, Unavailable
from modelpier_server.protocol.grpc.generated.health_pb2 import HealthCheckRequest, HealthCheckResponse
from modelpier_server.protocol.grpc.messages import dump, parse
from modelpier_server.transport.catalog import Catalog
from modelpier_server.transport.grpc.edge import Context, Edge

Status = HealthCheckResponse.ServingStatus


class Health:
    """`services`: names that stand for the whole server."""

    def __init__(self, catalog: Catalog, edge: Edge, services: frozenset[str]) -> None:
        self._catalog = catalog
        self._edge = edge
        self._services = services

    async def check(self, raw: bytes, _: Context) -> bytes:
        name = parse(HealthCheckRequest, raw).service
        status = self._status(name)
        if status == HealthCheckResponse.SERVICE_UNKNOWN:
            raise NotFound(f"service '{name}': neither a service nor a model of this server")
        return dump(HealthCheckResponse(status=status))

    async def watch(self, context: Context) -> None:
        """Tells the status now and whenever it changes, until the client leaves or the server goes down."""
        raw = await self._edge.read(context)
        if raw is None:
            raise InvalidRequest("request: the call carries no message")
        name = parse(HealthCheckRequest, raw).service
        changed = asyncio.Event()
        self._catalog.watchers.add(changed.set)
        self._edge.closing.add_done_callback(lambda _: changed.set())
        told: Status | None = None
        try:
            while True:
                changed.clear()
                status = self._status(name)
                if status != told:
                    told = status
                    await context.write(dump(HealthCheckResponse(status=status)))
                if self._edge.closing.done():
                    raise Unavailable("this server goes down")
                await changed.wait()
        finally:
            self._catalog.watchers.discard(changed.set)

    def _status(self, name: str) -> Status:
        catalog = self._catalog
        if name in self._services:
            return _serving(catalog.ready and not catalog.draining)
        states = [report.state for report in catalog.describe() if report.name == name]
        if not states:
            return HealthCheckResponse.SERVICE_UNKNOWN
        return _serving(ModelState.READY in states and not catalog.draining)


def _serving(ready: bool) -> Status:
    return HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
