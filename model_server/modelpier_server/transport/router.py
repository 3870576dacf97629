"""Which handler answers a request.

Patterns are paths whose segments may be placeholders, with or without an ending: `/v2/models/{model}/infer`,
`/v1/models/{model}:predict`. Of several that fit a path the most particular ones count. Two kinds of handlers: async
ones take a Request and return a Response; direct ones take the Exchange and answer it by themselves, without a task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

import httptools

from modelpier_server.errors import InvalidRequest, MethodNotAllowed, NotFound
from modelpier_server.protocol.http import Request, Response
from modelpier_server.transport.about import About
from modelpier_server.transport.exchange import Exchange
from modelpier_server.transport.security.scopes import Scope

Handler = Callable[[Request], Awaitable[Response]]
Direct = Callable[[Exchange], None]
BodyLimit = Callable[[Exchange], int]
_CACHE_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    segments: tuple[str, ...]
    handler: Handler | None = None
    direct: Direct | None = None
    body_limit: BodyLimit | None = None
    """Bytes that the body may have, asked once the headers are known and only for bodies that are not small."""
    about: About | None = None
    """For the OpenAPI document; None: an internal route."""
    scope: Scope | None = Scope.INFER
    """That a key must have, where keys are asked for; None: nobody needs one."""

    @property
    def pattern(self) -> str:
        return "/" + "/".join(self.segments)

    @property
    def rank(self) -> int:
        """How particular the pattern is."""
        return sum(2 if not s.startswith("{") else int(not s.endswith("}")) for s in self.segments)

    def match(self, segments: list[str]) -> dict[str, str] | None:
        """What the placeholders stand for; None when the path is another one."""
        if len(segments) != len(self.segments):
            return None
        params: dict[str, str] = {}
        for want, got in zip(self.segments, segments, strict=True):
            if want.startswith("{"):
                name, _, ending = want[1:].partition("}")
                if not got.endswith(ending):
                    return None
                params[name] = got.removesuffix(ending)
            elif want != got:
                return None
        return params if all(params.values()) else None


@dataclass(frozen=True, slots=True)
class Match:
    route: Route
    path: str
    params: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)


class Router:
    """Routes of one port."""

    def __init__(self) -> None:
        self._routes: list[Route] = []
        self._cache: dict[tuple[bytes, bytes], Match] = {}

    @property
    def routes(self) -> tuple[Route, ...]:
        return tuple(self._routes)

    def add(
        self,
        method: str,
        pattern: str,
        handler: Handler,
        body_limit: BodyLimit | None = None,
        about: About | None = None,
        *,
        scope: Scope | None = Scope.INFER,
    ) -> None:
        """An async handler. GET routes answer HEAD too."""
        self._routes.append(Route(method, _segments(pattern), handler, body_limit=body_limit, about=about, scope=scope))

    def add_direct(
        self,
        method: str,
        pattern: str,
        direct: Direct,
        body_limit: BodyLimit | None = None,
        about: About | None = None,
        *,
        scope: Scope | None = Scope.INFER,
    ) -> None:
        self._routes.append(
            Route(method, _segments(pattern), direct=direct, body_limit=body_limit, about=about, scope=scope)
        )

    def match(self, method: bytes, url: bytes) -> Match:
        """Raises NotFound, MethodNotAllowed, InvalidRequest. URLs are remembered: requests are many, models few."""
        found = self._cache.get((method, url))
        if found is None:
            found = self._match(method.decode("latin-1"), url)
            if len(self._cache) >= _CACHE_LIMIT:
                self._cache.clear()
            self._cache[(method, url)] = found
        return found

    def _match(self, method: str, url: bytes) -> Match:
        path, query = _parse(url)
        segments = [unquote(segment) for segment in path.split("/")[1:]]
        wanted = "GET" if method == "HEAD" else method
        fitting = [(route, params) for route in self._routes if (params := route.match(segments)) is not None]
        best = max((route.rank for route, _ in fitting), default=0)
        allowed: list[str] = []
        for route, params in fitting:
            if route.rank < best:
                continue
            if route.method == wanted:
                return Match(route, unquote(path), params, query)
            allowed += [route.method, "HEAD"] if route.method == "GET" else [route.method]
        if allowed:
            raise MethodNotAllowed(", ".join(sorted(set(allowed))))
        raise NotFound(f"no such path: {path[:200]}")


def _segments(pattern: str) -> tuple[str, ...]:
    return tuple(pattern.split("/")[1:])


def _parse(url: bytes) -> tuple[str, dict[str, str]]:
    try:
        parsed = httptools.parse_url(url)
        path = (parsed.path or b"/").decode("ascii")
        query = (parsed.query or b"").decode("ascii")
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError, ValueError) as error:
        raise InvalidRequest("request line: the URL is malformed") from error
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return path, found
