"""What handlers that are no hot path share: looking a model up, and running it for an answer.

`infer` has its own, leaner way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from modelpier_server.contract import ModelReport, ModelState
from modelpier_server.errors import DeadlineExceeded, PayloadTooLarge, ServerError, Unavailable
from modelpier_server.offload import Decoder, Large, is_large
from modelpier_server.protocol import forms
from modelpier_server.protocol.forms import Decoded, Form
from modelpier_server.protocol.http import Body, Request, Response
from modelpier_server.records import current
from modelpier_server.scheduler.servable import Servable
from modelpier_server.scheduler.work import Arrays, Work
from modelpier_server.transport.catalog import Catalog
from modelpier_server.transport.exchange import Exchange

Inputs = dict[str, npt.NDArray[Any]]
MEMORY = 16
"""Times `limits.max_body_bytes` that a body's JSON may take while it is decoded."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A request that was read: what to run, and how the outputs become an answer."""

    inputs: Inputs
    encode: Callable[[Arrays], Response]
    outputs: tuple[str, ...] | None = None
    """Names; None: all."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    form: Form
    body: Body
    find: Callable[[], Servable]
    """Who answers it. Raises NotFound, Unavailable."""
    read: Callable[[Any, Servable], Reading]
    """Of what `form` is decoded to. Raises InvalidRequest."""
    header_length: int | None = None
    """Bytes of the JSON part where binary tensors follow it."""


class Call(Work):
    """Makes the answer where the scheduler counts it: one that cannot be written is a failure in the figures, too."""

    __slots__ = ("_encode", "future")

    def __init__(self, reading: Reading, deadline: float) -> None:
        super().__init__(reading.inputs, reading.outputs, deadline)
        self._encode = reading.encode
        self.future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.future.add_done_callback(self._settled)

    def succeed(self, arrays: Arrays) -> bool:
        try:
            response = self._encode(arrays)
        except ServerError as error:
            self.fail(error)
            return False
        if not self.future.done():
            self.future.set_result(response)
        return True

    def fail(self, error: ServerError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def _settled(self, future: asyncio.Future[Response]) -> None:
        if future.cancelled():
            self.cancel()


def large_of(form: Form, body: Body, header_length: int | None, servable: Servable) -> Large:
    return Large(form, body, header_length, servable.signature, MEMORY * servable.limits.max_body_bytes)


class Models:
    """The catalog, as handlers ask it."""

    def __init__(self, catalog: Catalog, decoder: Decoder | None = None) -> None:
        """`decoder` of large bodies; None: they are decoded as all others."""
        self.catalog = catalog
        self._decoder = decoder

    # ------------------------------------------------------------------------------------------ looking up
    def ready(self, name: str, wanted: str | None) -> ModelReport:
        """Takes no turn of the weights, as `find` would. Raises NotFound, or Unavailable for what is not ready yet."""
        for report in self.catalog.describe():
            if report.name == name and report.state is ModelState.READY and wanted in {None, report.version}:
                return report
        self.catalog.find(name, wanted)  # knows whether it is unknown or not ready yet
        raise Unavailable(f"model '{name}' is not ready yet")

    def versions(self, name: str) -> list[str]:
        reports = self.catalog.describe()
        return sorted({r.version for r in reports if r.name == name and r.state is ModelState.READY})

    def serving(self, name: str | None = None, version: str | None = None) -> list[Servable]:
        """Who serves, by name and version. Takes no turn. Raises as `ready` where the one asked for is not there."""
        if name is not None:
            self.ready(name, version)
        found = [s for s in self.catalog.serving() if name in {None, s.name} and version in {None, s.version}]
        return sorted(found, key=lambda s: (s.name, s.version))

    def finder(self, request: Request) -> Callable[[], Servable]:
        """Finds who serves the model that the path names."""
        return lambda: self.catalog.find(request.params["model"], request.params.get("version"))

    # ------------------------------------------------------------------------------------------ limits of bodies
    def limit(self, exchange: Exchange) -> int:
        """Of the model that the path names: of several versions any may be meant."""
        served = self.serving(exchange.params["model"], exchange.params.get("version"))
        return max((s.limits.max_body_bytes for s in served), default=self.catalog.max_body_bytes())

    def largest(self, _: Exchange) -> int:
        """Where the body itself names the model: before it is read, any may be meant."""
        return self.catalog.max_body_bytes()

    # ------------------------------------------------------------------------------------------ running
    async def run(self, asked: Asked) -> Response:
        """Raises ServerError."""
        servable = asked.find()
        large = self._decoder is not None and is_large(asked.body, asked.header_length)
        call = await self._call(asked, servable)
        try:
            servable.enqueue(call)
        except Unavailable:
            # It may have been taken out of service while the body was decoded.
            if not large or (other := asked.find()) is servable:
                raise
            call = await self._call(asked, other)
            other.enqueue(call)
        return await call.future

    async def _call(self, asked: Asked, servable: Servable) -> Call:
        if len(asked.body) > servable.limits.max_body_bytes:
            raise PayloadTooLarge(f"body: more than the {servable.limits.max_body_bytes} bytes that this model takes")
        record = current.get()
        if record is not None:
            record.served(servable.name, servable.version)
        servable.check_room()
        try:
            decoded = await self._decoded(asked, servable)
        except ServerError:
            servable.reject()
            raise
        call = Call(asked.read(decoded, servable), time.monotonic() + servable.limits.request_timeout)
        call.record = record
        return call

    async def _decoded(self, asked: Asked, servable: Servable) -> Decoded:
        if self._decoder is None or not is_large(asked.body, asked.header_length):
            return forms.decode(asked.form, asked.body, asked.header_length, servable.signature)
        try:
            async with asyncio.timeout(servable.limits.request_timeout):
                return await self._decoder.decode(large_of(asked.form, asked.body, asked.header_length, servable))
        except TimeoutError:
            raise DeadlineExceeded(f"model '{servable.name}': no answer within the request's time") from None
