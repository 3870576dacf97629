"""KServe v1: `:predict` and the two look-ups. Source: KServe's `data_plane/v1_protocol.md`; see protocol.predict."""

from __future__ import annotations

from modelpier_server.protocol import example, predict, schemas
from modelpier_server.protocol.forms import Form
from modelpier_server.protocol.http import Request, Response
from modelpier_server.protocol.predict import PredictRequest
from modelpier_server.protocol.schemas import TEXT, array_of, shape_of
from modelpier_server.scheduler.servable import Servable
from modelpier_server.scheduler.work import Arrays
from modelpier_server.transport.about import INFER, LOOKUP, About
from modelpier_server.transport.models import Asked, Models, Reading
from modelpier_server.transport.router import Router

TAG = "KServe v1"


class V1:
    """Handlers of the family."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def add_to(self, router: Router) -> None:
        about = About(
            TAG,
            "Predict",
            statuses=INFER,
            of_model=schemas.predict_request,
            answer_of_model=schemas.predict_response,
            example=_example,
        )
        for path in ("/v1/models/{model}", "/v1/models/{model}/versions/{version}"):
            router.add("POST", f"{path}:predict", self.predict, self._models.limit, about)
        names = shape_of({"models": array_of(TEXT)}, ["models"])
        router.add("GET", "/v1/models", self.names, about=About(TAG, "Names of the models that serve", names))
        ready = shape_of({"name": TEXT, "ready": {"type": "boolean"}}, ["name", "ready"])
        about = About(TAG, "Whether a model serves", ready, statuses=LOOKUP)
        router.add("GET", "/v1/models/{model}", self.ready, about=about)

    async def names(self, _: Request) -> Response:
        return Response.json({"models": list(self._models.catalog.names())})

    async def ready(self, request: Request) -> Response:
        name = request.params["model"]
        self._models.ready(name, None)
        return Response.json({"name": name, "ready": True})

    async def predict(self, request: Request) -> Response:
        find = self._models.finder(request)
        return await self._models.run(Asked(Form.PREDICT, request.body, find, reading))


def _example(served: Servable) -> object:
    data = example.input_data(served.signature, served.finding.size)
    return None if data is None else {"inputs": data}


def reading(asked: PredictRequest, servable: Servable) -> Reading:
    def encode(arrays: Arrays) -> Response:
        return Response.of_json(predict.encode(servable.signature, arrays, asked.rows))

    return Reading(asked.inputs, encode)
