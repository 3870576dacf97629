"""`POST /model`: see protocol.plain."""

from __future__ import annotations

from modelpier_server.protocol import example, plain
from modelpier_server.protocol.forms import Form
from modelpier_server.protocol.http import Request, Response
from modelpier_server.protocol.plain import PlainInputs
from modelpier_server.protocol.schemas import MAYBE_TEXT, TEXT, shape_of
from modelpier_server.scheduler.servable import Servable
from modelpier_server.scheduler.work import Arrays
from modelpier_server.transport.about import INFER, About
from modelpier_server.transport.models import Asked, Models, Reading
from modelpier_server.transport.router import Router


class Plain:
    def __init__(self, models: Models) -> None:
        self._models = models

    def add_to(self, router: Router) -> None:
        body = shape_of(
            {"model_name": TEXT, "model_version": MAYBE_TEXT, "input_data": {}}, ["model_name", "input_data"]
        )
        answer = shape_of({"output_data": {}}, ["output_data"])
        about = About("Plain", "Infer with nested lists", answer, statuses=INFER, body=body, example=_example)
        router.add("POST", "/model", self.infer, self._models.largest, about)

    async def infer(self, request: Request) -> Response:
        asked = plain.decode(request.body)

        def find() -> Servable:
            return self._models.catalog.find(asked.model_name, asked.model_version)

        return await self._models.run(Asked(Form.PLAIN, request.body, find, _reading))


def _reading(asked: PlainInputs, servable: Servable) -> Reading:
    def encode(arrays: Arrays) -> Response:
        return Response.of_json(plain.encode(servable.signature, arrays))

    return Reading(asked.inputs, encode)


def _example(served: Servable) -> object:
    data = example.input_data(served.signature, served.finding.size)
    return None if data is None else {"model_name": served.name, "model_version": served.version, "input_data": data}
