"""What the OpenAPI document says of a route: the families of routes hand it to the router with each handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from modelpier_server.protocol.signature import Signature
from modelpier_server.scheduler.servable import Servable

Schema = Mapping[str, Any]
OfModel = Callable[[Signature], dict[str, Any]]

LOOKUP = (404, 503)
"""Statuses besides 200 of what is read about a model."""
BODY = (400, 408, 413, 415, 503)
"""Of a request with a body."""
INFER = (400, 404, 408, 413, 415, 429, 500, 503, 504)
"""Of what runs a model."""


@dataclass(frozen=True, slots=True)
class About:
    """`of_model` and `answer_of_model` take the place of `body` and `answer` for each model that is served."""

    tag: str
    summary: str
    answer: Schema | None = None
    """Of status 200; None: any."""
    media: tuple[str, ...] = ("application/json",)
    """Of status 200; `answer` is the schema of the first one."""
    statuses: tuple[int, ...] = ()
    body: Schema | None = None
    body_required: bool = True
    body_media: tuple[str, ...] = ("application/json",)
    of_model: OfModel | None = None
    answer_of_model: OfModel | None = None
    example: Callable[[Servable], Any] | None = None
    """A valid body for a model; its answer None: there is none that could be shown."""
    unready: bool = False
    """503 has the body of 200."""
