"""A request and an answer as handlers see them.

Here, and not in `transport`, because the admin handlers of `lifecycle` take and return them too and lie below the
transport. `transport` makes the requests and writes the answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import TypeAlias

import orjson

from modelpier_server.errors import MethodNotAllowed, ServerError

Body: TypeAlias = bytes | bytearray | memoryview
JSON_TYPE = "application/json"
TEXT_TYPE = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is percent-decoded; `query` holds the first value of each name; header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = b""
    params: Mapping[str, str] = field(default_factory=dict)
    """What the placeholders of the route's pattern matched."""


@dataclass(frozen=True, slots=True)
class Response:
    """`content-length` and `connection` are the transport's affair."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @classmethod
    def json(cls, value: object, status: int = 200) -> Response:
        """Dataclasses, enums and dates are encoded as orjson does."""
        return cls(status, {"content-type": JSON_TYPE}, orjson.dumps(value))

    @classmethod
    def of_json(cls, raw: bytes) -> Response:
        """200 with JSON that is written already."""
        return cls(200, {"content-type": JSON_TYPE}, raw)

    @classmethod
    def text(cls, value: str, status: int = 200) -> Response:
        return cls(status, {"content-type": TEXT_TYPE}, value.encode())

    @classmethod
    def of_error(cls, error: ServerError) -> Response:
        """`{"error": "..."}` as the Open Inference Protocol says, with Retry-After, Allow or WWW-Authenticate where
        they belong.
        """
        headers = {"content-type": JSON_TYPE}
        if error.retry_after is not None:
            headers["retry-after"] = str(max(1, ceil(error.retry_after)))
        if isinstance(error, MethodNotAllowed):
            headers["allow"] = error.allowed
        if error.challenge is not None:
            headers["www-authenticate"] = error.challenge
        return cls(error.status, headers, orjson.dumps({"error": str(error)}))
