"""The gRPC port: listens, knows the methods, and ends without losing a call.

`process` calls `serve` where a port is asked for. grpc.aio polls in a thread of its own and wakes the running loop, so
that it works with uvloop as with any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc

from modelpier_server.telemetry import Metrics
from modelpier_server.transport.catalog import Catalog
from modelpier_server.transport.grpc import reflection
from modelpier_server.transport.grpc.edge import Edge
from modelpier_server.transport.grpc.health import Health
from modelpier_server.transport.grpc.infer import Infer
from modelpier_server.transport.grpc.limits import GrpcLimits
from modelpier_server.transport.grpc.service import SCOPES, SERVICE, Service
from modelpier_server.transport.grpc.stream import QUIET, StreamInfer
from modelpier_server.transport.models import Models
from modelpier_server.transport.repository import Access
from modelpier_server.transport.routes import Extras
from modelpier_server.transport.security.scopes import Scope

HEALTH = "grpc.health.v1.Health"
LAST = 0.2
"""Seconds before the end in which calls that still run count as lost."""


class GrpcServer:
    """One listening port."""

    def __init__(self, server: grpc.aio.Server, edge: Edge, port: int) -> None:
        self._server = server
        self._edge = edge
        self._loop = asyncio.get_running_loop()
        self.port = port
        """The one that the kernel gave when 0 was asked for."""

    @property
    def unanswered(self) -> int:
        return self._edge.calls

    async def stop(self, timeout: float, *, patient: bool) -> bool:  # noqa: ASYNC109 - ends in time by itself
        """Answers what has come, listens no longer, closes. Whether all was answered within `timeout` seconds.

        gRPC gives up calls that it has read and not yet handed on when it is told to stop. So clients are waited for
        that use the port all the time and have somewhere else to go (`patient`): their connections come of age.
        """
        self._edge.closing.set_result(None)
        if patient:
            await self._settle()
        stopping = asyncio.ensure_future(self._server.stop(timeout))
        await asyncio.wait({stopping}, timeout=max(0.0, timeout - LAST))
        lost = self._edge.calls
        await stopping
        return not lost

    async def _settle(self) -> None:
        """Until nobody has called for QUIET seconds."""
        end = self._loop.time() + self._edge.limits.settling
        while not self._quiet() and self._loop.time() < end:  # noqa: ASYNC110 - calls come and go all the time
            await asyncio.sleep(0.05)

    def _quiet(self) -> bool:
        return not self._edge.calls and self._loop.time() > self._edge.called + QUIET


class Methods(grpc.GenericRpcHandler):
    """All methods of the port by their full names."""

    def __init__(self, catalog: Catalog, metrics: Metrics, edge: Edge, access: Access) -> None:
        service, infer = Service(Models(catalog), metrics, access), Infer(catalog)
        health = Health(catalog, edge, frozenset({"", SERVICE}))
        prefix = f"/{SERVICE}/"
        methods = {
            f"{prefix}{name}": edge.unary(f"{SERVICE}/{name}", method, SCOPES.get(name, Scope.INFER))
            for name, method in service.methods.items()
        }
        methods[f"{prefix}ModelInfer"] = edge.unary(f"{SERVICE}/ModelInfer", infer)
        stream = StreamInfer(infer, edge)
        methods[f"{prefix}ModelStreamInfer"] = edge.stream(f"{SERVICE}/ModelStreamInfer", stream)
        methods[f"/{HEALTH}/Check"] = edge.unary(f"{HEALTH}/Check", health.check, None)
        methods[f"/{HEALTH}/Watch"] = edge.stream(f"{HEALTH}/Watch", health.watch, None)
        methods.update(reflection.handlers(frozenset({SERVICE, HEALTH}), edge.closing))
        self._methods: Mapping[str, grpc.RpcMethodHandler[Any, Any]] = methods

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """None for what is unknown here, which gRPC answers UNIMPLEMENTED."""
        return self._methods.get(handler_call_details.method)


async def serve(
    host: str,
    port: int,
    catalog: Catalog,
    metrics: Metrics,
    limits: GrpcLimits | None = None,
    *,
    extras: Extras | None = None,
) -> GrpcServer:
    """Listens on `host`:`port` (0: any free one). `extras` as of HTTP. Raises OSError where that cannot be had."""
    limits, extras = limits or GrpcLimits(), extras or Extras()
    edge = Edge(limits, metrics, extras.recorder, extras.keys)
    # The edge refuses first, and says when to come again; this bounds what does not come so far.
    server = grpc.aio.server(options=limits.options(), maximum_concurrent_rpcs=2 * limits.max_calls)
    server.add_generic_rpc_handlers((Methods(catalog, metrics, edge, extras.repository),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if extras.tls is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, extras.tls.grpc_credentials())
    except RuntimeError as error:
        raise OSError(f"{address}: cannot listen") from error
    await server.start()
    return GrpcServer(server, edge, bound)
