"""HTTP: connections, routes, handlers."""

from modelpier_server.transport.catalog import Catalog
from modelpier_server.transport.clouds import VertexRoutes
from modelpier_server.transport.limits import HttpLimits
from modelpier_server.transport.repository import BY_FLAG, BY_PLAN, Access
from modelpier_server.transport.router import Router
from modelpier_server.transport.routes import Extras, inference_app, probe_app
from modelpier_server.transport.server import App, Server, serve

__all__ = [
    "BY_FLAG",
    "BY_PLAN",
    "Access",
    "App",
    "Catalog",
    "Extras",
    "HttpLimits",
    "Router",
    "Server",
    "VertexRoutes",
    "inference_app",
    "probe_app",
    "serve",
]
