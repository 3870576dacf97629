"""One request and its answer on a connection.

The connection makes it when the headers are complete; handlers answer by `send` or `fail`, at once or later, in any
order: the connection keeps answers in the order of the requests.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from modelpier_server.errors import QueueFull, ServerError
from modelpier_server.protocol.http import Body, Request, Response
from modelpier_server.records import Record

if TYPE_CHECKING:
    from modelpier_server.transport.connection import Connection
    from modelpier_server.transport.router import Match


class Cancellable(Protocol):
    def cancel(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    parts: Sequence[bytes | memoryview]


class Exchange:
    """`headers` by lower-case name, as bytes."""

    __slots__ = (
        "answered", "body", "connection", "headers", "held", "keep_alive", "limit", "match", "method", "ready",
        "record", "refusal", "stash", "status", "url", "work",
    )  # fmt: skip

    def __init__(self, connection: Connection, method: bytes, url: bytes, headers: dict[bytes, bytes]) -> None:
        self.connection = connection
        self.method = method
        self.url = url
        self.headers = headers
        self.body: Body = b""
        self.match: Match | None = None
        self.keep_alive = True
        self.limit = 0
        """Bytes that the body may have; 0: not looked up, because the body is small."""
        self.held = 0
        """Bytes of the body that count against the limit of all connections."""
        self.refusal: QueueFull | None = None
        """The answer that was certain before the body came: it is read past, and neither kept nor inflated."""
        self.answered = False
        self.ready: Sequence[bytes | memoryview] | None = None
        """The answer, while an earlier request of the connection has none."""
        self.work: Cancellable | None = None
        """What is to be cancelled when the client goes away."""
        self.stash: Any = None
        """What a handler found out when it was asked for the body's limit."""
        self.status = 0
        self.record: Record | None = None

    @property
    def params(self) -> Mapping[str, str]:
        return self.match.params if self.match is not None else {}

    def request(self) -> Request:
        """As async handlers take it."""
        match = self.match
        assert match is not None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers.items()}
        return Request(self.method.decode(), match.path, match.query, headers, self.body, match.params)

    def send(self, response: Response) -> None:
        self.connection.answer(self, response.status, response.headers, (response.body,))

    def send_json(self, body: bytes) -> None:
        """The common case: 200 with JSON."""
        self.connection.answer_json(self, body)

    def send_parts(self, headers: Mapping[str, str], parts: Sequence[bytes | memoryview]) -> None:
        """200 with a body in parts, which are written without being joined."""
        self.connection.answer(self, 200, headers, parts)

    def fail(self, error: ServerError) -> None:
        self.send(Response.of_error(error))

    def refuse(self, error: QueueFull) -> None:
        """As `fail`, for an error that is told to many: its bytes are kept."""
        self.connection.answer_refusal(self, error)

    def later(self, work: Coroutine[None, None, None]) -> None:
        """What a direct handler does not do at once; raises ServerError as it does."""
        self.connection.later(self, work)

    def abort(self) -> None:
        """The client is gone."""
        self.answered = True
        work, self.work = self.work, None
        if work is not None:
            work.cancel()
