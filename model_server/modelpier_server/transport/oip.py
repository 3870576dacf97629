"""The Open Inference Protocol's health, metadata and infer. Source: `inference_rest.md`.

Answers of `ready` and `live` have KServe's bodies; clients go by the status.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from modelpier_server.contract import LIVE_PATH, READY_PATH
from modelpier_server.offload import Decoder
from modelpier_server.protocol import example, schemas
from modelpier_server.protocol.http import Request, Response
from modelpier_server.protocol.schemas import TEXT, array_of, shape_of
from modelpier_server.transport.about import INFER, LOOKUP, About
from modelpier_server.transport.exchange import Exchange
from modelpier_server.transport.infer import InferHandler
from modelpier_server.transport.models import Models
from modelpier_server.transport.router import Router

SERVER_NAME = "modelpier"
EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "generate",
    "model_configuration",
    "model_repository",
    "statistics",
]
PLATFORM = "onnx_onnxv1"
TAG = "Open Inference Protocol"
MODEL_PATHS = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")

_FLAG = {"type": "boolean"}
_TENSOR = shape_of({"name": TEXT, "datatype": TEXT, "shape": array_of({"type": "integer"})})
_METADATA = shape_of(
    {"name": TEXT, "versions": array_of(TEXT), "platform": TEXT, "inputs": array_of(_TENSOR),
     "outputs": array_of(_TENSOR)},
    ["name", "versions", "platform", "inputs", "outputs"],
)  # fmt: skip


class OpenInference:
    """Handlers of the family; `infer` is the hot path and lives in its own module."""

    def __init__(self, models: Models, decoder: Decoder | None = None) -> None:
        self._models = models
        self._decoder = decoder
        self._catalog = models.catalog
        self._version = server_version()

    def add_to(self, router: Router) -> None:
        about = About(
            TAG,
            "Infer",
            statuses=INFER,
            body_media=("application/json", "application/octet-stream"),
            media=("application/json", "application/octet-stream"),
            of_model=schemas.infer_request,
            answer_of_model=schemas.infer_response,
            example=lambda served: example.infer_request(served.signature, served.finding.size),
        )
        infer = InferHandler(self._catalog, self._decoder)
        for path in MODEL_PATHS:
            router.add_direct("POST", f"{path}/infer", infer, infer.body_limit, about)
            router.add("GET", path, self.model, about=About(TAG, "Model metadata", _METADATA, statuses=LOOKUP))
            ready = About(TAG, "Whether a model serves", shape_of({"ready": _FLAG}, ["ready"]), statuses=LOOKUP)
            router.add("GET", f"{path}/ready", self.model_ready, about=ready)
        self.add_health(router)
        server = shape_of({"name": TEXT, "version": TEXT, "extensions": array_of(TEXT)}, ["name", "version"])
        router.add("GET", "/v2", self.server, about=About(TAG, "Server metadata", server))
        names = shape_of({"models": array_of(TEXT)}, ["models"])
        router.add("GET", "/v2/models", self.models, about=About(TAG, "Names of the models that serve", names))

    def add_health(self, router: Router) -> None:
        live = About(
            TAG, "Whether the process works", shape_of({"live": _FLAG}, ["live"]), statuses=(503,), unready=True
        )
        router.add_direct("GET", LIVE_PATH, self.live, about=live, scope=None)
        ready = About(
            TAG,
            "Whether all required models serve",
            shape_of({"ready": _FLAG}, ["ready"]),
            statuses=(503,),
            unready=True,
        )
        router.add_direct("GET", READY_PATH, self.ready, about=ready, scope=None)

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
        name = request.params["model"]
        report = self._models.ready(name, request.params.get("version"))
        return Response.json({
            "name": name,
            "versions": self._models.versions(name),
            "platform": PLATFORM,
            "inputs": report.inputs,
            "outputs": report.outputs,
            "parameters": {"batching": report.batching},
        })  # fmt: skip

    async def model_ready(self, request: Request) -> Response:
        name = request.params["model"]
        self._models.ready(name, request.params.get("version"))
        return Response.json({"name": name, "ready": True})


def server_version() -> str:
    try:
        return version(SERVER_NAME)
    except PackageNotFoundError:  # run from the sources alone
        return "0"
