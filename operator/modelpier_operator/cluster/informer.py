"""Keeps a Sink in step with one collection of the API server: list, watch, and list again when the watch cannot go on.

kopf's own watches lose deletions that happen in a gap; here every listing is compared with what was known. One task per
kind and namespace, started by `caches`; a standby runs them as well, so that a new leader starts warm.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping

from modelpier_operator.cluster import errors
from modelpier_operator.cluster.backoff import Backoff
from modelpier_operator.cluster.client import Api, Object
from modelpier_operator.cluster.kinds import Key, Kind, key_of
from modelpier_operator.cluster.store import Sink, version_of
from modelpier_operator.telemetry import Telemetry

log = logging.getLogger(__name__)

PAGE = "500"
WATCH_SECONDS = (240, 330)
"""The server ends a watch after a random time in between, so that not all are renewed at once."""
DENIED_RETRY = 300.0


class Informer:
    """`namespace` None: all. `selector`: labelSelector, fieldSelector. `optional`: the sink can do without the
    rights.
    """

    def __init__(
        self,
        api: Api,
        kind: Kind,
        namespace: str | None,
        sink: Sink,
        telemetry: Telemetry,
        *,
        selector: Mapping[str, str],
        optional: bool = False,
    ) -> None:
        self._api, self.kind, self.namespace, self._sink, self._telemetry = api, kind, namespace, sink, telemetry
        self._selector, self._optional = dict(selector), optional
        self._backoff = Backoff(base=0.5, cap=30.0)
        self._version = 0
        self._rng = random.Random()  # noqa: S311 - spreads load, guards nothing
        self.synced = asyncio.Event()
        """The first listing is complete, or there is no right to it and it is optional."""
        self.heard: float | None = None
        """Loop time of the last listing, event or bookmark; None while there is no right."""

    async def run(self) -> None:
        """Forever; cancel it."""
        while True:
            try:
                await self._list()
                await self._follow()
            except errors.GoneError:
                log.info("watch of %s is too old: listing again", self.kind.plural)
            except errors.ForbiddenError as error:
                await self._without_rights(error)
            except errors.ApiError as error:
                log.warning("listing %s failed: %s", self.kind.plural, error)
                await asyncio.sleep(self._backoff.next())

    async def _without_rights(self, error: errors.ForbiddenError) -> None:
        if not self._optional:
            log.error("no right to list and watch %s: %s", self.kind.plural, error)
            await asyncio.sleep(self._backoff.next())
            return
        log.info("no right to see %s: doing without (%s)", self.kind.plural, error)
        self._sink.denied()
        self.heard = None
        self.synced.set()
        await asyncio.sleep(DENIED_RETRY)

    async def _list(self) -> None:
        path, seen, query = self.kind.collection(self.namespace), set[Key](), {**self._selector, "limit": PAGE}
        while True:
            page = await self._api.get(path, query)
            for item in page.get("items") or ():
                # Items of a list do not say what they are.
                item.update(kind=self.kind.kind, apiVersion=self.kind.api_version)
                seen.add(key_of(item))
                self._sink.put(item)
            metadata = page["metadata"]
            self._heard()
            if not (following := metadata.get("continue")):
                break
            query = {**query, "continue": following}
        self._version = int(metadata["resourceVersion"])
        self._sink.retain(self.namespace, seen, self._version)
        self._sink.advance(self.namespace, self._version)
        self._telemetry.relists.add(self.kind.plural)
        self._backoff.reset()
        self.synced.set()

    async def _follow(self) -> None:
        """Watch after watch from where the last one ended. Raises GoneError, ForbiddenError."""
        while True:
            try:
                await self._watch()
                self._heard()
                self._backoff.reset()
            except errors.UnavailableError as error:
                log.info("watch of %s broke off: %s", self.kind.plural, error)
                await asyncio.sleep(self._backoff.next())

    async def _watch(self) -> None:
        query = {
            **self._selector,
            "resourceVersion": str(self._version),
            "timeoutSeconds": str(self._rng.randint(*WATCH_SECONDS)),
        }
        async for event in self._api.watch(self.kind.collection(self.namespace), query):
            self._take(event["type"], event["object"])

    def _take(self, kind: str, manifest: Object) -> None:
        self._heard()
        self._version = version_of(manifest)
        if kind == "DELETED":
            self._sink.drop(manifest)
        elif kind != "BOOKMARK":
            self._sink.put(manifest)
        self._sink.advance(self.namespace, self._version)

    def _heard(self) -> None:
        self.heard = asyncio.get_running_loop().time()
