"""`POST /v2/models/{model}[/versions/{version}]/infer`, the hot path: no task, no future, one object per request.

`InferCall` is at once the scheduler's work and the holder of the exchange; its `succeed` encodes and writes the answer.
"""

from __future__ import annotations

import time

from modelpier_server.errors import InvalidRequest, ServerError, Unavailable
from modelpier_server.protocol.infer_request import InferRequest, decode
from modelpier_server.protocol.infer_response import encode
from modelpier_server.scheduler.servable import Servable
from modelpier_server.scheduler.work import Arrays, Work
from modelpier_server.transport.catalog import Catalog
from modelpier_server.transport.exchange import Exchange

HEADER_LENGTH = b"inference-header-content-length"


class InferCall(Work):
    __slots__ = ("_exchange", "_request", "_servable")

    def __init__(self, exchange: Exchange, request: InferRequest, servable: Servable) -> None:
        seconds = servable.limits.request_timeout
        if request.timeout is not None and request.timeout < seconds:
            seconds = request.timeout
        super().__init__(request.inputs, request.outputs, time.monotonic() + seconds, request.priority)
        self._exchange = exchange
        self._request = request
        self._servable = servable

    def succeed(self, arrays: Arrays) -> bool:
        servable = self._servable
        try:
            encoded = encode(servable.name, servable.version, self._request, servable.signature, arrays)
        except ServerError as error:
            self._exchange.fail(error)
            return False
        if not encoded.tensors:
            self._exchange.send_json(encoded.json)
        else:
            headers = {
                "content-type": "application/octet-stream",
                "inference-header-content-length": str(len(encoded.json)),
            }
            self._exchange.send_parts(headers, (encoded.json, *encoded.tensors))
        return True

    def fail(self, error: ServerError) -> None:
        self._exchange.fail(error)


class InferHandler:
    """A direct handler."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __call__(self, exchange: Exchange) -> None:
        """Raises ServerError for what is wrong at once."""
        servable = exchange.stash if exchange.stash is not None else self._find(exchange)
        if (refusal := servable.full()) is not None:
            exchange.refuse(refusal)
            return
        try:
            request = decode(exchange.body, _header_length(exchange), servable.signature)
        except ServerError:
            servable.reject()
            raise
        call = InferCall(exchange, request, servable)
        if exchange.record is not None:
            call.record = exchange.record
        exchange.work = call
        try:
            servable.enqueue(call)
        except Unavailable:
            # It was found when the headers came, and taken out of service while the body was on its way.
            if exchange.stash is None:
                raise
            exchange.stash = None
            self(exchange)

    def body_limit(self, exchange: Exchange) -> int:
        """Whoever is found for the limit answers the request: asking twice would count twice in the weights of
        versions.
        """
        exchange.stash = servable = self._find(exchange)
        exchange.refusal = servable.full()
        return servable.limits.max_body_bytes

    def _find(self, exchange: Exchange) -> Servable:
        params = exchange.params
        servable = self._catalog.find(params["model"], params.get("version"))
        if exchange.record is not None:
            exchange.record.served(servable.name, servable.version)
        return servable


def _header_length(exchange: Exchange) -> int | None:
    value = exchange.headers.get(HEADER_LENGTH)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise InvalidRequest("Inference-Header-Content-Length: must be the number of bytes of the body's JSON part")
    return int(value)
