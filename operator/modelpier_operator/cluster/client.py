"""The only way to the API server: one HTTP session, JSON by orjson, a time-out on every request, a gate before writes.

Everything else in `cluster` is handed an Api; tests hand in an API of their own that keeps the same promises.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self
from urllib.parse import quote

import orjson

from modelpier_operator.cluster import errors
from modelpier_operator.cluster.config import Access
from modelpier_operator.cluster.http import Answer, Before, Origin, Pool
from modelpier_operator.names import FIELD_MANAGER
from modelpier_operator.telemetry import Telemetry

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"  # JSON is YAML, and this is the type's only spelling before CBOR
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

MANAGER = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Ignore"}
"""The query of every write of objects. Unknown fields would bring warnings that nobody reads, and to look for them the
server decodes twice."""

CONNECTIONS = 32
READ_TIMEOUT = 30.0
"""Seconds for a whole read; a page of 500 large objects takes well under one."""
WRITE_TIMEOUT = 5.0
WATCH_SILENCE = 150.0
"""Seconds without a byte after which a watch counts as dead; bookmarks come about once a minute."""
TOKEN_AGE = 60.0

Gate = Callable[[float], None]
"""Called before a write starts, with the seconds it may take; raises NotLeaderError when it must not start."""
Query = Mapping[str, str]
Object = dict[str, Any]
Body = Object | list[Object]

_ESCAPED_BY_GO = tuple((c.encode(), f"\\u{ord(c):04x}".encode()) for c in "<>&\u2028\u2029")


def encode(body: Any) -> bytes:
    """JSON as Go's encoder writes it: sorted keys, and no <, > or & in strings.

    A ControllerRevision's data are kept byte by byte as they came, and must never change: an apply, which Go encodes
    anew, is refused as a change of data that were posted in any other form.
    """
    raw = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    # Outside of strings JSON has none of these characters.
    for character, escaped in _ESCAPED_BY_GO:
        raw = raw.replace(character, escaped)
    return raw


class Api(Protocol):
    """What the rest of `cluster` needs of an API server. Every method may raise ApiError."""

    async def get(self, path: str, query: Query | None = None, *, accept: str = JSON) -> Object: ...

    async def write(
        self, method: str, path: str, body: Body, *, query: Query | None = None, content_type: str = JSON
    ) -> Object:
        """A write that only the leader may make. `body` is never empty: DELETE takes DeleteOptions."""

    async def write_ungated(self, method: str, path: str, body: Object, *, seconds: float) -> Object:
        """A write that anyone may make: the Lease itself, and questions about one's own rights."""

    def watch(self, path: str, query: Query) -> AsyncIterator[Object]:
        """Events in order until the server ends the watch. Raises GoneError when the version is too old."""


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    query: Query | None = None
    body: bytes = b""
    content_type: str = JSON
    accept: str = JSON


def open_gate(_seconds: float) -> None:
    """For programs that are alone by construction."""


class Client:
    """An Api over HTTP. `async with Client(...)`, within the event loop that uses it."""

    def __init__(
        self,
        access: Access,
        *,
        user_agent: str,
        telemetry: Telemetry,
        write_timeout: float = WRITE_TIMEOUT,
    ) -> None:
        self._access, self._telemetry = access, telemetry
        self._gate: Gate = open_gate
        self._write_timeout = write_timeout
        self._always = f"User-Agent: {user_agent}\r\nAccept-Encoding: identity\r\n"
        self._token: tuple[float, str] = (float("-inf"), "")
        """When it was read, and the header line that it makes."""
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._origin = Origin.of(access.server, access.tls())
        self._pool = Pool(self._origin)
        self._writing = 0
        self._quiet = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pool.close()

    async def get(self, path: str, query: Query | None = None, *, accept: str = JSON) -> Object:
        async with self._slots:
            return await self._send(_Request("GET", path, query, accept=accept), READ_TIMEOUT)

    async def write(
        self, method: str, path: str, body: Body, *, query: Query | None = None, content_type: str = JSON
    ) -> Object:
        request = _Request(method, path, query, encode(body), content_type)
        async with self._slots:
            self._ask_gate()
            with self._in_flight():
                answer = await self._send(request, self._write_timeout, self._ask_gate)
        self._telemetry.writes.add(method.lower(), _resource(path))
        return answer

    async def write_ungated(self, method: str, path: str, body: Object, *, seconds: float) -> Object:
        # No slot: the renewal of the lease must not queue behind anything.
        return await self._send(_Request(method, path, None, encode(body)), seconds)

    def guard(self, gate: Gate) -> None:
        """From now on every write but the ungated ones asks `gate`."""
        self._gate = gate

    async def quiet(self, seconds: float) -> bool:
        """Whether all gated writes have been answered, after waiting for it for so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._writing:
                    self._quiet.clear()
                    await self._quiet.wait()
        return not self._writing

    @contextlib.contextmanager
    def _in_flight(self) -> Iterator[None]:
        self._writing += 1
        try:
            yield
        finally:
            self._writing -= 1
            if not self._writing:
                self._quiet.set()

    def _ask_gate(self) -> None:
        self._gate(self._write_timeout)

    async def _send(self, request: _Request, seconds: float, before: Before | None = None) -> Object:
        """`before` is called at the moment in which the request goes out: between a first question and that moment a
        connection may have been opened, or the whole process may have been stopped and continued.
        """
        begin, code = time.perf_counter(), "0"
        try:
            head = self._head(request, len(request.body) if request.body else None)
            async with asyncio.timeout(seconds):
                # Only what changes nothing is sent again by itself (RFC 9110, 9.2.2).
                again = request.method == "GET"
                answer = await self._pool.ask(head, request.body, again=again, before=before)
            code = str(answer.status)
            if answer.status >= 300:
                raise self._refusal(answer)
            return _object(answer.body)
        except OSError as error:  # TimeoutError among them
            raise errors.UnavailableError(f"{request.method} {request.path}: {error!r}") from error
        finally:
            duration = time.perf_counter() - begin
            self._telemetry.requests.observe(duration, request.method.lower(), _resource(request.path), code)

    async def watch(self, path: str, query: Query) -> AsyncIterator[Object]:
        try:
            head = self._head(_Request("GET", path, {**query, "watch": "1", "allowWatchBookmarks": "1"}), None)
            async with self._pool.stream(head, READ_TIMEOUT) as (answer, stream):
                if answer.status != 200:
                    async with asyncio.timeout(READ_TIMEOUT):
                        answer.body = b"".join([chunk async for chunk in stream.chunks()])
                    raise self._refusal(answer)
                async for line in _lines(stream.chunks(WATCH_SILENCE)):
                    event = _object(line)
                    if event.get("type") == "ERROR":
                        status = event.get("object") or {}
                        raise errors.from_status(int(status.get("code") or 500), status)
                    yield event
        except OSError as error:
            raise errors.UnavailableError(f"watch of {path}: {error!r}") from error

    def _head(self, request: _Request, length: int | None) -> bytes:
        pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in (request.query or {}).items())
        content = f"Content-Type: {request.content_type}\r\n" if request.body else ""
        return self._origin.head(
            request.method,
            f"{request.path}{'?' if pairs else ''}{pairs}",
            f"{self._always}Accept: {request.accept}\r\n{self._authorization()}{content}",
            length,
        )

    def _authorization(self) -> str:
        read_at, line = self._token
        if time.monotonic() - read_at > TOKEN_AGE:
            token = self._access.bearer()
            line = f"Authorization: Bearer {token}\r\n" if token else ""
            self._token = (time.monotonic(), line)
        return line

    def _refusal(self, answer: Answer) -> errors.ApiError:
        if answer.status == 401:
            self._token = (float("-inf"), "")
        return errors.from_status(answer.status, _decoded(answer.body), answer.header("retry-after"))


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines of any length."""
    rest: list[bytes] = []
    async for chunk in chunks:
        *lines, last = chunk.split(b"\n")
        for line in lines:
            whole = b"".join((*rest, line))
            rest.clear()
            if whole:
                yield whole
        if last:
            rest.append(last)


def _decoded(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw[:300].decode(errors="replace")


def _object(raw: bytes) -> Object:
    decoded = _decoded(raw)
    if not isinstance(decoded, dict):
        raise errors.UnavailableError(f"the answer is not a JSON object but {str(decoded)[:100]!r}")
    return decoded


def _resource(path: str) -> str:
    """`deployments` of .../namespaces/x/deployments/y, `modeldeployments/status` of .../y/status."""
    parts = path.split("/")[3:] if path.startswith("/api/") else path.split("/")[4:]
    if len(parts) > 2 and parts[0] == "namespaces":
        parts = parts[2:]
    return "/".join(part for index, part in enumerate(parts) if index != 1)
