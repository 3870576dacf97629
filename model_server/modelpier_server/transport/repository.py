"""Triton's model repository extension: what there is, and, where it is allowed, loading and unloading.

In a pod a serving plan decides what is held, and nobody else; without one `--allow-repository-control` lets clients
load and unload what `--model` names. Source: Triton's `extension_model_repository.md`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from modelpier_server.errors import Forbidden, InvalidRequest
from modelpier_server.protocol.http import Body, Request, Response
from modelpier_server.protocol.model_index import READY, index_entry, unloaded_entry
from modelpier_server.protocol.reading import decoded
from modelpier_server.protocol.schemas import TEXT, array_of, shape_of
from modelpier_server.transport.about import BODY, About
from modelpier_server.transport.models import Models
from modelpier_server.transport.router import Router
from modelpier_server.transport.security.scopes import Scope

T = TypeVar("T")
TAG = "Triton repository"
LARGEST_BODY = 64 * 1024
BY_PLAN = "a serving plan decides what this server holds; change the ModelDeployment instead"
BY_FLAG = "this server was not started with --allow-repository-control"


class Control(Protocol):
    """Loads and unloads; `lifecycle` does it."""

    async def load(self, name: str) -> None:
        """Returns once it serves. Raises NotFound, InvalidRequest (it cannot be loaded), Unavailable (busy)."""

    async def unload(self, name: str) -> None:
        """Returns once it is found no more. Raises NotFound, Unavailable (busy)."""

    def unloaded(self) -> list[tuple[str, str]]:
        """Name and version of what could be loaded."""


class IndexRequest(msgspec.Struct):
    ready: bool = False


class ControlRequest(msgspec.Struct):
    parameters: dict[str, Any] = {}


@dataclass(frozen=True)
class Access:
    """Who may load and unload: clients by `control`, or nobody, and `refusal` says why."""

    control: Control | None = None
    refusal: str = BY_FLAG

    def allowed(self) -> Control:
        """Raises Forbidden."""
        if self.control is None:
            raise Forbidden(f"loading and unloading: {self.refusal}")
        return self.control

    def entries(self, models: Models, *, only_ready: bool) -> list[dict[str, str]]:
        """The index: what is planned, and what could be loaded."""
        gone = self.control.unloaded() if self.control is not None else []
        found = [index_entry(report) for report in models.catalog.describe()]
        found += [unloaded_entry(name, version) for name, version in gone]
        return [entry for entry in found if entry["state"] == READY or not only_ready]


NOBODY = Access()


def check_overrides(names: Iterable[str]) -> None:
    """Of the parameters of a load. Raises InvalidRequest."""
    if given := sorted(names):
        raise InvalidRequest(f"parameters.{given[0][:100]}: a model is loaded as --model names it; leave it out")


class Repository:
    """Handlers of the family."""

    def __init__(self, models: Models, access: Access) -> None:
        self._models = models
        self._access = access

    def add_to(self, router: Router) -> None:
        entry = shape_of({"name": TEXT, "version": TEXT, "state": TEXT, "reason": TEXT}, ["name", "state"])
        wanted = shape_of({"ready": {"type": "boolean"}})
        about = About(TAG, "Models, loaded or not", array_of(entry), statuses=BODY, body=wanted, body_required=False)
        router.add("POST", "/v2/repository/index", self.index, _limit, about, scope=Scope.ADMIN)
        statuses = (*BODY, 403, 404)
        for action, handler, most in (("load", self.load, {"maxProperties": 0}), ("unload", self.unload, {})):
            wanted = shape_of({"parameters": {"type": "object", **most}})
            about = About(TAG, action.title(), {}, statuses=statuses, body=wanted, body_required=False)
            router.add("POST", f"/v2/repository/models/{{model}}/{action}", handler, _limit, about, scope=Scope.ADMIN)

    async def index(self, request: Request) -> Response:
        only_ready = _decode(request.body, IndexRequest).ready
        return Response.json(self._access.entries(self._models, only_ready=only_ready))

    async def load(self, request: Request) -> Response:
        control = self._allowed(request)
        check_overrides(_decode(request.body, ControlRequest).parameters)
        await control.load(request.params["model"])
        return Response.json({})

    async def unload(self, request: Request) -> Response:
        control = self._allowed(request)
        _decode(request.body, ControlRequest)  # `unload_dependents` is of no account: no model depends on another
        await control.unload(request.params["model"])
        return Response.json({})

    def _allowed(self, request: Request) -> Control:
        """Raises Forbidden; also for a page of another site, which a browser lets send this without being asked."""
        control = self._access.allowed()
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
            raise Forbidden(f"loading and unloading: not for pages of {origin[:100]}")
        return control


def _limit(_: object) -> int:
    return LARGEST_BODY


def _decode(body: Body, kind: type[T]) -> T:
    return decoded(msgspec.json.Decoder(kind).decode, body, "request") if body else kind()
