"""The routes of the inference port: Open Inference Protocol v2, `POST /model`, metrics.

Sources: Open Inference Protocol `inference_rest.md`; Triton's `extension_binary_data.md`. Answers of `ready` and
`live` have KServe's bodies; clients go by the status.
"""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, version

from modelpier_server.contract import LIVE_PATH, METRICS_PATH, READY_PATH, ModelReport, ModelState
from modelpier_server.errors import PayloadTooLarge, ServerError, Unavailable
from modelpier_server.protocol import plain
from modelpier_server.protocol.http import Request, Response
from modelpier_server.scheduler.work import FutureWork
from modelpier_server.telemetry import CONTENT_TYPE, Metrics
from modelpier_server.transport.catalog import Catalog
from modelpier_server.transport.exchange import Exchange
from modelpier_server.transport.infer import InferHandler
from modelpier_server.transport.router import Router
from modelpier_server.transport.server import App

SERVER_NAME = "modelpier"
EXTENSIONS = ["binary_tensor_data"]
PLATFORM = "onnx_onnxv1"


def inference_app(catalog: Catalog, metrics: Metrics, *, access_log: bool = False) -> App:
    """All that the inference port serves."""
    router = Router()
    routes = Routes(catalog, metrics)
    infer = InferHandler(catalog)
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        router.add_direct("POST", f"{prefix}/infer", infer, infer.body_limit)
        router.add("GET", prefix, routes.model)
        router.add("GET", f"{prefix}/ready", routes.model_ready)
    router.add_direct("GET", LIVE_PATH, routes.live)
    router.add_direct("GET", READY_PATH, routes.ready)
    router.add("GET", "/v2", routes.server)
    router.add("GET", "/v2/models", routes.models)
    router.add("POST", "/model", routes.plain, routes.plain_limit)
    router.add("GET", METRICS_PATH, routes.metrics)
    return App(router, metrics, access_log)


class Routes:
    """Handlers that are no hot path."""

    def __init__(self, catalog: Catalog, metrics: Metrics) -> None:
        self._catalog = catalog
        self._metrics = metrics
        self._version = _version()

    def live(self, exchange: Exchange) -> None:
        """200 while draining, too: a kubelet must not restart a server that is about to end."""
        live = self._catalog.live
        exchange.send(Response.json({"live": live}, 200 if live else 503))

    def ready(self, exchange: Exchange) -> None:
        ready = self._catalog.ready and not self._catalog.draining
        exchange.send(Response.json({"ready": ready}, 200 if ready else 503))

    async def server(self, _: Request) -> Response:
        return Response.json({"name": SERVER_NAME, "version": self._version, "extensions": EXTENSIONS})

    async def models(self, _: Request) -> Response:
        return Response.json({"models": list(self._catalog.names())})

    async def model(self, request: Request) -> Response:
        """Metadata. 404 for a model that is unknown, 503 for one that is not ready."""
        name, wanted = request.params["model"], request.params.get("version")
        report = self._ready(name, wanted)
        return Response.json({
            "name": name,
            "versions": self._versions(name),
            "platform": PLATFORM,
            "inputs": report.inputs,
            "outputs": report.outputs,
            "parameters": {"batching": report.batching},
        })  # fmt: skip

    async def model_ready(self, request: Request) -> Response:
        name = request.params["model"]
        self._ready(name, request.params.get("version"))
        return Response.json({"name": name, "ready": True})

    async def plain(self, request: Request) -> Response:
        """`POST /model`: see protocol.plain."""
        asked = plain.decode(request.body)
        servable = self._catalog.find(asked.model_name, asked.model_version)
        if len(request.body) > servable.limits.max_body_bytes:
            raise PayloadTooLarge(f"body: more than the {servable.limits.max_body_bytes} bytes that this model takes")
        try:
            inputs = plain.inputs_of(asked, servable.signature)
        except ServerError:
            servable.reject()
            raise
        work = FutureWork(inputs, None, time.monotonic() + servable.limits.request_timeout)
        servable.enqueue(work)
        arrays = await work.future
        return Response(200, {"content-type": "application/json"}, plain.encode(servable.signature, arrays))

    def plain_limit(self, _: Exchange) -> int:
        """The body itself names the model: before it is read, any may be meant."""
        return self._catalog.max_body_bytes()

    async def metrics(self, _: Request) -> Response:
        return Response(200, {"content-type": CONTENT_TYPE}, self._metrics.render())

    def _ready(self, name: str, wanted: str | None) -> ModelReport:
        """Takes no turn of the weights, as `find` would. Raises NotFound, or Unavailable for what is not ready yet."""
        for report in self._catalog.describe():
            if report.name == name and report.state is ModelState.READY and wanted in {None, report.version}:
                return report
        self._catalog.find(name, wanted)  # knows whether it is unknown or not ready yet
        raise Unavailable(f"model '{name}' is not ready yet")

    def _versions(self, name: str) -> list[str]:
        reports = self._catalog.describe()
        return sorted({r.version for r in reports if r.name == name and r.state is ModelState.READY})


def _version() -> str:
    try:
        return version(SERVER_NAME)
    except PackageNotFoundError:  # run from the sources alone
        return "0"
