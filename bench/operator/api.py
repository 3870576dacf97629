"""A lean client of the API server for the measuring process and the loader; every other module here goes through it.

It speaks JSON over one aiohttp session, so that the measuring costs little of what it measures.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from bench.operator.requests import AGENT

PAGE = 500
REQUEST_SECONDS = 30.0
MERGE_PATCH = "application/merge-patch+json"
LINE_LIMIT = 1 << 24
"""Bytes that one watch event may have."""


class ApiError(RuntimeError):
    """An answer that is not 2xx."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:300]}")
        self.status = status


@dataclass(frozen=True)
class Access:
    """How to reach an API server as its administrator."""

    url: str
    token: str
    authority: str

    @classmethod
    def of(cls, kubeconfig: Path) -> Access:
        data = json.loads(kubeconfig.read_text())
        cluster = data["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        return cls(cluster["server"], data["users"][0]["user"]["token"], authority)


class Api:
    """`async with Api(access) as api`."""

    def __init__(self, access: Access, connections: int = 32) -> None:
        self.access = access
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context(cadata=self.access.authority)
        self._session = aiohttp.ClientSession(
            base_url=self.access.url,
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=context),
            headers={"Authorization": f"Bearer {self.access.token}", "User-Agent": AGENT},
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            read_bufsize=LINE_LIMIT,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open().close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use `async with Api(...)`")
        return self._session

    async def text(self, path: str) -> str:
        async with self._open().get(path) as answer:
            return await answer.text()

    async def send(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """Raises ApiError."""
        data = None if body is None else orjson.dumps(body)
        async with self._open().request(method, path, data=data, headers={"Content-Type": content_type}) as answer:
            raw = await answer.read()
            if answer.status >= 300:
                raise ApiError(answer.status, raw.decode(errors="replace"))
            return orjson.loads(raw)

    async def list(self, path: str, selector: str = "") -> tuple[list[dict[str, Any]], str]:
        """All objects, page by page, and the resource version of the first page."""
        items: list[dict[str, Any]] = []
        version = token = ""
        while True:
            page = await self.send("GET", f"{path}?limit={PAGE}&labelSelector={selector}&continue={token}")
            items += page["items"]
            version = version or page["metadata"]["resourceVersion"]
            if not (token := page["metadata"].get("continue", "")):
                return items, version

    async def watch(
        self, path: str, version: str, selector: str = ""
    ) -> AsyncGenerator[tuple[str, Mapping[str, Any]], None]:
        """(type, object) of each change after `version`, until the server ends the watch."""
        query = f"{path}?watch=1&resourceVersion={version}&labelSelector={selector}&timeoutSeconds=3600"
        forever = aiohttp.ClientTimeout(total=None, sock_read=None)
        async with self._open().get(query, timeout=forever) as answer:
            if answer.status >= 300:
                raise ApiError(answer.status, await answer.text())
            async for line in answer.content:
                event = orjson.loads(line)
                yield event["type"], event["object"]
