"""Triton's model repository extension: what there is, and, where it is allowed, loading and unloading.

In a pod a serving plan decides what is held, and nobody else; without one `--allow-repository-control` lets clients
load and unload what `--model` names. Source: Triton's `extension_model_repository.md`.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import msgspec

from modelpier_server.contract import ModelReport, ModelState
from modelpier_server.errors import Forbidden, InvalidRequest
from modelpier_server.protocol.http import Body, Request, Response
from modelpier_server.protocol.schemas import TEXT, array_of, shape_of
from modelpier_server.transport.about import BODY, About
from modelpier_server.transport.models import Models
from modelpier_server.transport.router import Router

T = TypeVar("T")
TAG = "Triton repository"
STATES = {
    ModelState.READY: "READY",
    ModelState.DRAINING: "UNLOADING",
    ModelState.STOPPED: "UNAVAILABLE",
    ModelState.FAILED: "UNAVAILABLE",
}
"""Of Triton; all others are LOADING."""
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


class Repository:
    """Handlers of the family. `control` None: not allowed, and `refusal` says why."""

    def __init__(self, models: Models, control: Control | None, refusal: str = BY_FLAG) -> None:
        self._models = models
        self._control = control
        self._refusal = refusal

    def add_to(self, router: Router) -> None:
        entry = shape_of({"name": TEXT, "version": TEXT, "state": TEXT, "reason": TEXT}, ["name", "state"])
        wanted = shape_of({"ready": {"type": "boolean"}})
        about = About(TAG, "Models, loaded or not", array_of(entry), statuses=BODY, body=wanted, body_required=False)
        router.add("POST", "/v2/repository/index", self.index, _limit, about)
        statuses = (*BODY, 403, 404)
        for action, handler, most in (("load", self.load, {"maxProperties": 0}), ("unload", self.unload, {})):
            wanted = shape_of({"parameters": {"type": "object", **most}})
            about = About(TAG, action.title(), {}, statuses=statuses, body=wanted, body_required=False)
            router.add("POST", f"/v2/repository/models/{{model}}/{action}", handler, _limit, about)

    async def index(self, request: Request) -> Response:
        only_ready = _decode(request.body, IndexRequest).ready
        entries = [_entry(report) for report in self._models.catalog.describe()]
        if self._control is not None:
            gone = {"state": "UNAVAILABLE", "reason": "unloaded"}
            entries += [{"name": name, "version": version, **gone} for name, version in self._control.unloaded()]
        return Response.json([entry for entry in entries if entry["state"] == "READY" or not only_ready])

    async def load(self, request: Request) -> Response:
        control = self._allowed(request)
        overrides = _decode(request.body, ControlRequest).parameters
        if overrides:
            raise InvalidRequest(
                f"parameters.{min(overrides)[:100]}: a model is loaded as --model names it; leave it out"
            )
        await control.load(request.params["model"])
        return Response.json({})

    async def unload(self, request: Request) -> Response:
        control = self._allowed(request)
        _decode(request.body, ControlRequest)  # `unload_dependents` is of no account: no model depends on another
        await control.unload(request.params["model"])
        return Response.json({})

    def _allowed(self, request: Request) -> Control:
        """Raises Forbidden; also for a page of another site, which a browser lets send this without being asked."""
        if self._control is None:
            raise Forbidden(f"loading and unloading: {self._refusal}")
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
            raise Forbidden(f"loading and unloading: not for pages of {origin[:100]}")
        return self._control


def _limit(_: object) -> int:
    return LARGEST_BODY


def _entry(report: ModelReport) -> dict[str, str]:
    """The reason alone, of the closed set: its text may name where models come from."""
    reason = report.reason.value if report.reason is not None else ""
    state = STATES.get(report.state, "LOADING")
    return {"name": report.name, "version": report.version, "state": state, "reason": reason}


def _decode(body: Body, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind) if body else kind()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"request: {error}") from error
    except RecursionError as error:
        raise InvalidRequest("request: nested too deeply") from error
