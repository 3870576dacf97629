"""All that the inference port serves, by families of routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelpier_server.contract import METRICS_PATH
from modelpier_server.offload import Decoder
from modelpier_server.protocol.http import Request, Response
from modelpier_server.protocol.schemas import TEXT
from modelpier_server.records import Recorder
from modelpier_server.telemetry import CONTENT_TYPE, Metrics
from modelpier_server.transport.about import About
from modelpier_server.transport.catalog import Catalog
from modelpier_server.transport.clouds import Clouds, VertexRoutes
from modelpier_server.transport.models import Models
from modelpier_server.transport.oip import OpenInference
from modelpier_server.transport.openapi import OpenApi
from modelpier_server.transport.page import Page
from modelpier_server.transport.plain import Plain
from modelpier_server.transport.repository import NOBODY, Access, Repository
from modelpier_server.transport.router import Router
from modelpier_server.transport.server import App
from modelpier_server.transport.shadows import Shadows
from modelpier_server.transport.triton import Triton
from modelpier_server.transport.v1 import V1

if TYPE_CHECKING:  # imported where there are any
    from modelpier_server.transport.security.keys import Keys
    from modelpier_server.transport.security.tls import Tls


@dataclass(frozen=True)
class Extras:
    """What only some servers have."""

    recorder: Recorder | None = None
    repository: Access = NOBODY
    vertex: VertexRoutes | None = None
    tls: Tls | None = None
    keys: Keys | None = None
    decoder: Decoder | None = None
    """Of large bodies; None: they are decoded as all others."""


def inference_app(catalog: Catalog, metrics: Metrics, extras: Extras | None = None) -> App:
    """`extras` None: none."""
    extras = extras or Extras()
    router, models = Router(), Models(catalog, extras.decoder)
    families = (
        Clouds(models, extras.vertex),  # first: the routes of Vertex AI are the caller's to choose
        OpenInference(models, extras.decoder),
        Triton(models, metrics),
        Repository(models, extras.repository),
        Shadows(models),
        V1(models),
        Plain(models),
        Page(models, metrics),
        OpenApi(models, router, guarded=extras.keys is not None),
    )
    for family in families:
        family.add_to(router)

    _add_metrics(router, metrics)
    return App(router, metrics, extras.recorder, extras.tls, extras.keys)


def probe_app(catalog: Catalog, metrics: Metrics) -> App:
    """Health and figures alone: for kubelets and scrapers, which have no certificate to show."""
    router, oip = Router(), OpenInference(Models(catalog))
    oip.add_health(router)
    _add_metrics(router, metrics)
    return App(router)


def _add_metrics(router: Router, metrics: Metrics) -> None:
    async def text(_: Request) -> Response:
        return Response(200, {"content-type": CONTENT_TYPE}, metrics.render())

    about = About("About", "Metrics for Prometheus", TEXT, media=("text/plain",))
    router.add("GET", METRICS_PATH, text, about=about, scope=None)  # scrapers and autoscalers have no key
