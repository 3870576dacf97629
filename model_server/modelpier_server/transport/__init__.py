"""HTTP: connections, routes, handlers."""

from modelpier_server.transport.catalog import Catalog
from modelpier_server.transport.limits import HttpLimits
from modelpier_server.transport.router import Router
from modelpier_server.transport.routes import inference_app
from modelpier_server.transport.server import App, Server, serve

__all__ = ["App", "Catalog", "HttpLimits", "Router", "Server", "inference_app", "serve"]
