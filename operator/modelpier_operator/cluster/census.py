"""The rare listing of all ModelDeployments by name that finds what kopf's watch lost. One task, started by `process`.

kopf does not compare a new listing with what it knew, so a deletion within a gap of its watch is lost; and nobody
notices a watch that died in silence. Names and versions alone are listed: some 300 bytes for each object.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

from modelpier_operator.cluster import errors
from modelpier_operator.cluster.client import METADATA_LIST, Api
from modelpier_operator.cluster.deployments import Deployments
from modelpier_operator.cluster.kinds import MODEL_DEPLOYMENT, Key
from modelpier_operator.telemetry import Telemetry

log = logging.getLogger(__name__)
Object = dict[str, Any]

EVERY = 600.0
SETTLE = 10.0
"""Seconds that kopf may take to deliver what a listing showed."""
PAGE = "500"


class Census:
    def __init__(
        self, api: Api, deployments: Deployments, namespaces: Sequence[str], telemetry: Telemetry, every: float = EVERY
    ) -> None:
        self._api, self._deployments, self._telemetry, self._every = api, deployments, telemetry, every
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self.deaf = 0
        """Listings in a row that showed something which kopf's watch should have delivered and did not."""

    async def wait_for_kind(self) -> None:
        """Returns once the API server serves ModelDeployments: kopf never notices a kind that is installed later."""
        while True:
            try:
                await self._api.get(MODEL_DEPLOYMENT.collection(self._namespaces[0]), {"limit": "1"})
            except errors.NotFoundError:
                log.warning("the API server has no ModelDeployments: install the CustomResourceDefinition")
            except errors.ApiError as error:
                log.warning("ModelDeployments cannot be listed yet: %s", error)
            else:
                return
            await asyncio.sleep(2.0)

    async def run(self) -> None:
        """Forever; cancel it."""
        while True:
            await asyncio.sleep(self._every * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
            try:
                await self.take()
            except errors.ApiError as error:
                log.warning("the listing of names failed: %s", error)

    async def take(self) -> None:
        """One listing. Raises ApiError."""
        listed, version = await self._list()
        differences = self._deployments.compare(listed, version)
        for key in differences.gone:
            log.warning("the deletion of ModelDeployment %s/%s was lost by the watch", *key)
            self._telemetry.lost.add()
        self._deployments.remove_gone(differences.gone)
        if differences.late:
            await asyncio.sleep(SETTLE)
        late = self._deployments.compare(listed, version).late
        self.deaf = self.deaf + 1 if late else 0
        for key in late:
            await self._fetch(key)

    async def _fetch(self, key: Key) -> None:
        log.warning("the watch did not deliver ModelDeployment %s/%s", *key)
        try:
            self._deployments.seen(await self._api.get(MODEL_DEPLOYMENT.item(key)))
        except errors.NotFoundError:
            return

    async def _list(self) -> tuple[list[Object], int]:
        """All names, and the oldest version of the listings: nothing is missing that is older."""
        items: list[Object] = []
        versions: list[int] = []
        for namespace in self._namespaces:
            async for page in self._pages(namespace):
                items.extend(page.get("items") or ())
                versions.append(int(page["metadata"]["resourceVersion"]))
        return items, min(versions)

    async def _pages(self, namespace: str | None) -> AsyncIterator[Object]:
        query = {"limit": PAGE}
        while True:
            page = await self._api.get(MODEL_DEPLOYMENT.collection(namespace), query, accept=METADATA_LIST)
            yield page
            if not (following := page["metadata"].get("continue")):
                return
            query = {**query, "continue": following}
