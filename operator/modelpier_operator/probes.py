"""The operator's own small HTTP server: /healthz, /readyz and /metrics. Started by `process` before anything else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from modelpier_operator.telemetry import CONTENT_TYPE, Telemetry

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Check = Callable[[], str]
"""Empty when all is well, else what is wrong."""


class ProbeServer:
    def __init__(self, port: int, telemetry: Telemetry, *, healthy: Check, ready: Check) -> None:
        self._port = port
        app = web.Application()
        app.router.add_get("/healthz", _probe(healthy))
        app.router.add_get("/readyz", _probe(ready))
        app.router.add_get("/metrics", _metrics(telemetry))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)

    async def start(self) -> None:
        """Raises OSError when the port is taken."""
        await self._runner.setup()
        # All addresses: the kubelet asks at the pod's.
        await web.TCPSite(self._runner, "0.0.0.0", self._port).start()  # noqa: S104

    async def stop(self) -> None:
        await self._runner.cleanup()


def _probe(check: Check) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        wrong = check()
        return web.Response(text=wrong or "ok", status=503 if wrong else 200)

    return answer


def _metrics(telemetry: Telemetry) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=telemetry.render().encode(), headers={"Content-Type": CONTENT_TYPE})

    return answer
