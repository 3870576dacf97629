"""The page at `/` for people: models, their tensors, live figures, and a form to try a request.

One file without external assets, put together here from three. It polls `/status.json` and takes valid requests from
`/openapi.json`. Whoever does not ask for HTML gets what KServe v1 answers at `/` for liveness.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from modelpier_server.contract import ModelReport, ModelState
from modelpier_server.protocol.http import Request, Response
from modelpier_server.protocol.schemas import TEXT, array_of, shape_of
from modelpier_server.scheduler.servable import Servable
from modelpier_server.telemetry import Metrics, ModelMetrics
from modelpier_server.transport.about import About
from modelpier_server.transport.models import Models
from modelpier_server.transport.oip import SERVER_NAME, server_version
from modelpier_server.transport.router import Router

TAG = "About"


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE, _SCRIPT = _asset("page.css"), _asset("page.js")
_HTML = _asset("page.html").replace("/*style*/", _STYLE).replace("/*script*/", _SCRIPT).encode()
_POLICY = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Names of models come from elsewhere: should one ever get into the page as markup, nothing of it would run."""
_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
    "vary": "accept",
}


class Page:
    """Handlers of the page and of what it polls."""

    def __init__(self, models: Models, metrics: Metrics) -> None:
        self._models = models
        self._metrics = metrics

    def add_to(self, router: Router) -> None:
        alive = shape_of({"status": TEXT}, ["status"])
        about = About(TAG, "Liveness as KServe v1 has it; a page for browsers", alive)
        router.add("GET", "/", self.page, about=about, scope=None)  # the page's figures are not in it
        status = shape_of({"ready": {"type": "boolean"}, "models": array_of({"type": "object"})}, ["ready", "models"])
        router.add("GET", "/status.json", self.status, about=About(TAG, "What the page shows", status))

    async def page(self, request: Request) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return Response.json({"status": "alive"})
        return Response(200, _HEADERS, _HTML)

    async def status(self, _: Request) -> Response:
        catalog = self._models.catalog
        served = {(s.name, s.revision): s for s in catalog.serving()}
        answer = {
            "server": {"name": SERVER_NAME, "version": server_version()},
            "ready": catalog.ready and not catalog.draining,
            "connections": self._metrics.connections,
            "models": [self._model(r, served.get((r.name, r.revision))) for r in catalog.describe()],
        }
        return Response(
            200, {"content-type": "application/json", "cache-control": "no-store"}, Response.json(answer).body
        )

    def _model(self, report: ModelReport, servable: Servable | None) -> dict[str, Any]:
        metrics = self._metrics.find(report.name, report.version) if report.state is ModelState.READY else None
        return {
            "name": report.name,
            "version": report.version,
            "state": report.state,
            "reason": report.reason or "",
            "provider": report.provider,
            "batching": servable.finding.why if servable is not None else "",
            "inputs": report.inputs,
            "outputs": report.outputs,
            "figures": _figures(metrics) if metrics is not None else None,
        }


def _figures(metrics: ModelMetrics) -> dict[str, Any]:
    durations = metrics.request_seconds
    return {
        "success": metrics.success,
        "failed": metrics.failed,
        "pending": metrics.pending,
        "rows": metrics.rows,
        "executions": metrics.executions,
        "seconds": {"bounds": durations.bounds, "counts": durations.buckets},
    }
