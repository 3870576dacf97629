"""The OpenAPI 3.1 document at `/openapi.json`: what the router's routes say of themselves, and the served models.

Routes whose body depends on the model are there once per model, with the model's own inputs and outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from modelpier_server.protocol.http import JSON_TYPE, Request, Response
from modelpier_server.protocol.schemas import TEXT, shape_of
from modelpier_server.scheduler.servable import Servable
from modelpier_server.transport.about import About
from modelpier_server.transport.models import Models
from modelpier_server.transport.oip import SERVER_NAME, server_version
from modelpier_server.transport.router import Route, Router

MOST_MODELS = 50
"""Beyond, a document that names every model of a pool would be megabytes: the first ones stand for the others."""
_PLACEHOLDER = re.compile(r"{(\w+)}")
_ERROR = {"$ref": "#/components/schemas/Error"}
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
REFUSED = (400, 405, 431)
"""By the transport itself, on any route."""


class OpenApi:
    """`routes` are read when the document is asked for: all families have been added by then."""

    def __init__(self, models: Models, router: Router, *, guarded: bool = False) -> None:
        """`guarded`: API keys are asked for."""
        self._models = models
        self._guarded = guarded
        self._router = router
        self._kept: tuple[object, bytes] = (None, b"")
        """The last document, and what it was about."""

    def add_to(self, router: Router) -> None:
        about = About("About", "This document", {"type": "object"})
        router.add("GET", "/openapi.json", self.document, about=about)

    async def document(self, _: Request) -> Response:
        served = self._models.serving()
        about = [(one.name, one.version, one.signature) for one in served]
        if self._kept[0] != about:
            document = Response.json(describe(self._router, served, guarded=self._guarded))
            self._kept = (about, document.body)
        return Response.of_json(self._kept[1])


def describe(router: Router, served: list[Servable], *, guarded: bool = False) -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in router.routes:
        if route.about is None:
            continue
        for path, operation in _operations(route, route.about, served):
            if guarded and route.scope is not None:
                operation["security"] = [{name: []} for name in _SCHEMES]
                operation["responses"].update({str(status): _error(status) for status in (401, 403)})
            paths.setdefault(path, {})[route.method.lower()] = operation
    components: dict[str, Any] = {"schemas": {"Error": shape_of({"error": TEXT}, ["error"])}}
    if guarded:
        components["securitySchemes"] = _SCHEMES
    return {
        "openapi": "3.1.0",
        "info": {"title": SERVER_NAME, "version": server_version(), "license": {"name": "Apache-2.0"}},
        "paths": dict(sorted(paths.items())),
        "components": components,
    }


def _operations(route: Route, about: About, served: list[Servable]) -> Iterator[tuple[str, dict[str, Any]]]:
    if about.of_model is None or not served:
        yield route.pattern, _operation(route, about, {"body": about.body, "answer": about.answer}, served)
        return
    for one in served[:MOST_MODELS]:
        values = {"model": one.name, "version": one.version}
        path = _PLACEHOLDER.sub(lambda found, values=values: values[found[1]], route.pattern)  # type: ignore[misc]
        answer = about.answer_of_model(one.signature) if about.answer_of_model is not None else about.answer
        yield path, _operation(route, about, {"body": about.of_model(one.signature), "answer": answer}, [one], path)


def _operation(
    route: Route, about: About, schemas: Mapping[str, Any], served: list[Servable], path: str | None = None
) -> dict[str, Any]:
    path = route.pattern if path is None else path
    operation: dict[str, Any] = {
        "tags": [about.tag],
        "summary": about.summary,
        "operationId": f"{route.method.lower()}{re.sub('[^A-Za-z0-9]+', '_', path)}",
        "responses": _responses(about, schemas["answer"]),
    }
    if names := _PLACEHOLDER.findall(path):
        operation["parameters"] = [_parameter(name, served) for name in names]
    if schemas["body"] is not None:
        content: dict[str, dict[str, Any]] = {media: {"schema": {}} for media in about.body_media}
        content[JSON_TYPE] = {"schema": schemas["body"], **_examples(about, served)}
        operation["requestBody"] = {"required": about.body_required, "content": content}
    return operation


def _examples(about: About, served: list[Servable]) -> dict[str, Any]:
    if about.example is None:
        return {}
    found = {f"{one.name}:{one.version}": about.example(one) for one in served[:MOST_MODELS]}
    found = {name: value for name, value in found.items() if value is not None}
    if about.of_model is not None:
        return {"example": next(iter(found.values()))} if found else {}
    return {"examples": {name: {"value": value} for name, value in found.items()}} if found else {}


def _parameter(name: str, served: list[Servable]) -> dict[str, Any]:
    known = sorted({one.name if name == "model" else one.version for one in served[:MOST_MODELS]})
    return {"name": name, "in": "path", "required": True, "schema": {**TEXT, **({"enum": known} if known else {})}}


def _error(status: int) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": {JSON_TYPE: {"schema": _ERROR}}}


def _responses(about: About, answer: Any) -> dict[str, Any]:
    content: dict[str, dict[str, Any]] = {media: {} for media in about.media}
    if answer is not None:
        content[about.media[0]] = {"schema": answer}
    responses: dict[str, Any] = {"200": {"description": "OK", "content": content}}
    for status in sorted({*about.statuses, *REFUSED}):
        body = answer if about.unready and status == HTTPStatus.SERVICE_UNAVAILABLE else _ERROR
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": {JSON_TYPE: {"schema": body}}}
    return responses
