"""The routes of two clouds' model containers: SageMaker's `/ping` and `/invocations`, Vertex AI's by environment.

Both send whatever their user sends. Bodies are those of the Open Inference Protocol or of KServe v1 (which is Vertex
AI's own), told apart by their form; SageMaker keeps only the header Content-Type, so that the length of the JSON part
before binary tensors comes in there, as Triton's container has it. Sources: Amazon SageMaker's "custom inference code
with hosting services", Vertex AI's "custom container requirements", Triton's `sagemaker_server.cc`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelpier_server.errors import InvalidRequest, NotFound, UnsupportedMedia
from modelpier_server.protocol import infer_response
from modelpier_server.protocol.forms import Form
from modelpier_server.protocol.http import JSON_TYPE, Request, Response
from modelpier_server.protocol.infer_request import InferRequest
from modelpier_server.protocol.infer_response import Encoded
from modelpier_server.protocol.predict import PredictRequest
from modelpier_server.scheduler.servable import Servable
from modelpier_server.scheduler.work import Arrays
from modelpier_server.transport.about import INFER, About
from modelpier_server.transport.exchange import Exchange
from modelpier_server.transport.models import Asked, Models, Reading
from modelpier_server.transport.router import Router
from modelpier_server.transport.v1 import reading as predict_reading

TAG = "Clouds"
BINARY_TYPE = "application/vnd.sagemaker-triton.binary+json"
_BINARY = re.compile(re.escape(BINARY_TYPE) + r"\s*;\s*json-header-size=(\d{1,18})")
TARGET = "x-amzn-sagemaker-target-model"
ARCHIVE = ".tar.gz"
"""Multi-model endpoints name archives."""
_JSON = re.compile(r"(application|text)/([a-z0-9.+-]*\+)?json\s*(;.*)?|\*/\*|application/x-www-form-urlencoded")
"""The last one is what curl says of `-d`."""


@dataclass(frozen=True)
class VertexRoutes:
    """Where Vertex AI looks for health and sends requests."""

    health: str
    predict: str


class Clouds:
    """Handlers of the family. `vertex` None: this container does not run there."""

    def __init__(self, models: Models, vertex: VertexRoutes | None) -> None:
        self._models = models
        self._vertex = vertex

    def add_to(self, router: Router) -> None:
        health = About(TAG, "Whether all required models serve (SageMaker)", {}, statuses=(503,), unready=True)
        media = (JSON_TYPE, BINARY_TYPE)
        text = "Infer with the only model, or the target model (SageMaker)"
        invoke = About(TAG, text, {}, media, statuses=INFER, body={"type": "object"}, body_media=media)
        router.add_direct("GET", "/ping", self.health, about=health, scope=None)
        router.add("POST", "/invocations", self.invoke, self._models.largest, invoke)
        if self._vertex is not None:
            router.add_direct("GET", self._vertex.health, self.health, scope=None)
            router.add("POST", self._vertex.predict, self.invoke, self._models.largest)

    def health(self, exchange: Exchange) -> None:
        catalog = self._models.catalog
        ready = catalog.ready and not catalog.draining
        exchange.send(Response.json({"ready": ready}, 200 if ready else 503))

    async def invoke(self, request: Request) -> Response:
        def find() -> Servable:
            return self._models.catalog.find(self._target(request))

        length = _header_length(request)
        return await self._models.run(Asked(Form.CLOUD, request.body, find, _reading, length))

    def _target(self, request: Request) -> str:
        """Name of the model. Raises NotFound, InvalidRequest."""
        names = self._models.catalog.names()
        target = request.headers.get(TARGET)
        if target is not None:
            return target if target in names else target.lstrip("/").removesuffix(ARCHIVE)
        if len(names) > 1:
            raise InvalidRequest(f"header {TARGET}: missing, and several models are served: {', '.join(names)[:500]}")
        planned = {report.name for report in self._models.catalog.describe()}
        if not names and not planned:
            raise NotFound("no model is served here yet")
        return names[0] if names else min(planned)


def _header_length(request: Request) -> int | None:
    """Bytes of the JSON part where binary tensors follow. Raises UnsupportedMedia."""
    content_type = request.headers.get("content-type", JSON_TYPE).strip().lower()
    if found := _BINARY.fullmatch(content_type):
        return int(found[1])
    if content_type.startswith(BINARY_TYPE) or not _JSON.fullmatch(content_type):
        raise UnsupportedMedia(
            f"Content-Type: '{content_type[:100]}' is not read here; application/json is, and "
            f"{BINARY_TYPE};json-header-size=N"
        )
    return None


def _reading(asked: InferRequest | PredictRequest, servable: Servable) -> Reading:
    if isinstance(asked, PredictRequest):
        return predict_reading(asked, servable)

    def encode(arrays: Arrays) -> Response:
        return _response(infer_response.encode(servable.name, servable.version, asked, servable.signature, arrays))

    return Reading(asked.inputs, encode, asked.outputs)


def _response(encoded: Encoded) -> Response:
    if not encoded.tensors:
        return Response.of_json(encoded.json)
    content_type = f"{BINARY_TYPE};json-header-size={len(encoded.json)}"
    return Response(200, {"content-type": content_type}, b"".join((encoded.json, *encoded.tensors)))
