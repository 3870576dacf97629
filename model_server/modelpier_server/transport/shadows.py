"""`GET /v2/models/{model}/shadow`: how the shadows of a model differ from what answers. Ours; no protocol has it."""

from __future__ import annotations

from typing import Any

from modelpier_server.protocol.http import Request, Response
from modelpier_server.protocol.schemas import TEXT, array_of, shape_of
from modelpier_server.transport.about import LOOKUP, About
from modelpier_server.transport.models import Models
from modelpier_server.transport.router import Router

PATH = "/v2/models/{model}/shadow"
_COUNT = {"type": "integer", "minimum": 0}
_ANSWER = shape_of(
    {
        "model_name": TEXT,
        "shadows": array_of(
            shape_of(
                {
                    "shadow_version": TEXT,
                    "version": TEXT,
                    "outcomes": {"type": "object", "additionalProperties": _COUNT},
                    "outputs": array_of({"type": "object"}),
                },
                ["shadow_version", "version", "outcomes", "outputs"],
            )
        ),
    },
    ["model_name", "shadows"],
)


class Shadows:
    """Handlers of the family."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def add_to(self, router: Router) -> None:
        about = About("Shadows", "Differences of shadows", _ANSWER, statuses=LOOKUP)
        router.add("GET", PATH, self.compared, about=about)

    async def compared(self, request: Request) -> Response:
        """A pair of shadow and version that answers each; none where there is no shadow."""
        name = request.params["model"]
        mirrors = dict.fromkeys(mirror for servable in self._models.serving(name) for mirror in servable.mirrors)
        pairs: list[dict[str, Any]] = [
            {"shadow_version": mirror.version, "version": found.version, "outcomes": found.outcomes,
             "outputs": found.outputs}
            for mirror in mirrors
            for found in mirror.report()
        ]  # fmt: skip
        return Response.json({"model_name": name, "shadows": pairs})
