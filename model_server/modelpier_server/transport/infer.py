"""`POST /v2/models/{model}[/versions/{version}]/infer`, the hot path: no task, no future, one object per request.

`InferCall` is at once the scheduler's work and the holder of the exchange; its `succeed` encodes and writes the answer.
"""

from __future__ import annotations

import asyncio
import time

from modelpier_server.errors import DeadlineExceeded, InvalidRequest, ServerError, Unavailable
from modelpier_server.offload import LARGE, Decoder, is_large
from modelpier_server.protocol.forms import Form
from modelpier_server.protocol.infer_request import InferRequest, decode
from modelpier_server.protocol.infer_response import encode
from modelpier_server.scheduler.servable import Servable
from modelpier_server.scheduler.work import Arrays, Work
from modelpier_server.transport.catalog import Catalog
from modelpier_server.transport.exchange import Exchange
from modelpier_server.transport.models import large_of

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

    def __init__(self, catalog: Catalog, decoder: Decoder | None = None) -> None:
        """`decoder` of large bodies; None: they are decoded as all others."""
        self._catalog = catalog
        self._decoder = decoder

    def __call__(self, exchange: Exchange) -> None:
        """Raises ServerError for what is wrong at once."""
        servable = exchange.stash if exchange.stash is not None else self._find(exchange)
        if (refusal := servable.full()) is not None:
            exchange.refuse(refusal)
            return
        try:
            length = _header_length(exchange)
            body = exchange.body
            if len(body) > LARGE and self._decoder is not None and is_large(body, length):
                exchange.later(self._decode_large(exchange, length, servable, self._decoder))
                return
            request = decode(body, length, servable.signature)
        except ServerError:
            servable.reject()
            raise
        self._enqueue(exchange, request, servable)

    async def _decode_large(self, exchange: Exchange, length: int | None, servable: Servable, decoder: Decoder) -> None:
        """Its time begins now, and not when it has been decoded."""
        try:
            async with asyncio.timeout(servable.limits.request_timeout):
                request = await decoder.decode(large_of(Form.INFER, exchange.body, length, servable))
        except TimeoutError:
            servable.reject()
            raise DeadlineExceeded(f"model '{servable.name}': no answer within the request's time") from None
        except ServerError:
            servable.reject()
            raise
        assert isinstance(request, InferRequest)
        self._enqueue(exchange, request, servable)

    def _enqueue(self, exchange: Exchange, request: InferRequest, servable: Servable) -> None:
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
