"""Triton's additions that clients use: configuration, statistics, generate. The repository has a module of its own.

Sources: Triton's `extension_model_configuration.md`, `extension_statistics.md`, `extension_generate.md`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modelpier_server.protocol import generate, schemas
from modelpier_server.protocol.forms import Form
from modelpier_server.protocol.generate import GenerateRequest
from modelpier_server.protocol.http import Request, Response
from modelpier_server.protocol.model_config import Facts, model_config
from modelpier_server.protocol.schemas import TEXT, array_of, shape_of
from modelpier_server.protocol.statistics import model_statistics
from modelpier_server.scheduler.servable import Servable
from modelpier_server.scheduler.work import Arrays
from modelpier_server.telemetry import Metrics
from modelpier_server.transport.about import INFER, LOOKUP, About
from modelpier_server.transport.models import Asked, Models, Reading
from modelpier_server.transport.oip import MODEL_PATHS
from modelpier_server.transport.router import Router

TAG = "Triton extensions"
_NUMBER = {"type": "integer", "minimum": 0}
_STATISTICS = shape_of({
    "model_stats": array_of(shape_of(
        {"name": TEXT, "version": TEXT, "last_inference": _NUMBER, "inference_count": _NUMBER,
         "execution_count": _NUMBER, "inference_stats": {"type": "object"}, "batch_stats": {"type": "array"}},
        ["name", "version", "last_inference", "inference_count", "execution_count", "inference_stats", "batch_stats"],
    )),
}, ["model_stats"])  # fmt: skip
_CONFIG = shape_of(
    {"name": TEXT, "platform": TEXT, "backend": TEXT, "max_batch_size": _NUMBER, "input": {"type": "array"},
     "output": {"type": "array"}},
    ["name", "platform", "backend", "max_batch_size", "input", "output"],
)  # fmt: skip


class Triton:
    """Handlers of the family."""

    def __init__(self, models: Models, metrics: Metrics) -> None:
        self._models = models
        self._metrics = metrics

    def add_to(self, router: Router) -> None:
        statistics = About(TAG, "Statistics", _STATISTICS, statuses=LOOKUP)
        text = About(
            TAG,
            "Generate",
            statuses=INFER,
            of_model=schemas.generate_request,
            answer_of_model=schemas.generate_response,
        )
        events = replace(
            text, summary="Generate as a stream of events", media=("text/event-stream",), answer_of_model=None
        )
        for path in MODEL_PATHS:
            about = About(TAG, "Model configuration", _CONFIG, statuses=LOOKUP)
            router.add("GET", f"{path}/config", self.config, about=about)
            router.add("GET", f"{path}/stats", self.statistics, about=statistics)
            router.add("POST", f"{path}/generate", self.generate, self._models.limit, text)
            router.add("POST", f"{path}/generate_stream", self.generate_stream, self._models.limit, events)
        router.add("GET", "/v2/models/stats", self.statistics, about=statistics)

    async def config(self, request: Request) -> Response:
        """Of one version; they differ at most in what was found out about batches."""
        name, version = request.params["model"], request.params.get("version")
        served = self._models.serving(name, version)[-1]
        return Response.json(model_config(facts_of(served, self._models.versions(name))))

    async def statistics(self, request: Request) -> Response:
        """Of all versions, where none is named."""
        served = self._models.serving(request.params.get("model"), request.params.get("version"))
        found = [self._metrics.find(*key) for key in dict.fromkeys((s.name, s.version) for s in served)]
        stats: list[dict[str, Any]] = [model_statistics(metrics) for metrics in found if metrics is not None]
        return Response.json({"model_stats": stats})

    async def generate(self, request: Request) -> Response:
        find = self._models.finder(request)
        return await self._models.run(Asked(Form.GENERATE, request.body, find, _reading))

    async def generate_stream(self, request: Request) -> Response:
        """Models of this server answer once, so that the stream is one event; what fails is no stream."""
        answer = await self.generate(request)
        headers = {"content-type": generate.STREAM_TYPE, "cache-control": "no-store"}
        return Response(200, headers, generate.event(answer.body))


def facts_of(servable: Servable, versions: list[str]) -> Facts:
    session = servable.session
    return Facts(
        name=servable.name,
        versions=versions,
        inputs=session.inputs,
        outputs=session.outputs,
        provider=session.provider,
        instances=session.instances,
        max_rows=servable.finding.max_rows,
        batching=servable.finding.why,
    )


def _reading(asked: GenerateRequest, servable: Servable) -> Reading:
    def encode(arrays: Arrays) -> Response:
        return Response.of_json(generate.encode(servable.name, servable.version, asked, servable.signature, arrays))

    return Reading(asked.inputs, encode)
