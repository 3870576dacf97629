"""Everything that the operator watches, in one place: made by `reconcile`'s Operator, read by `observe`, told by
`apply`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

from modelpier_operator import names
from modelpier_operator.cluster.capacity import CapacityCache
from modelpier_operator.cluster.client import Api
from modelpier_operator.cluster.complaints import Complaints
from modelpier_operator.cluster.deployments import Deployments
from modelpier_operator.cluster.informer import Informer
from modelpier_operator.cluster.kinds import CHILDREN, EVENT, NODE, POD, REPLICA_SET, Key, Kind
from modelpier_operator.cluster.store import Sink, Store, pod_trim, replica_set_trim
from modelpier_operator.settings import Settings
from modelpier_operator.telemetry import Telemetry

MANAGED = {"labelSelector": f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"}
WARNINGS = {"fieldSelector": "type=Warning,involvedObject.kind=Pod"}
NOT_ENDED = {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}


class Caches:
    """`changed` is called with the key of each ModelDeployment about which something new is known."""

    def __init__(self, api: Api, settings: Settings, telemetry: Telemetry, changed: Callable[[Key], None]) -> None:
        self._api, self._telemetry, self._changed = api, telemetry, changed
        self.deployments = Deployments(changed)
        self.children: Mapping[str, Store] = {kind: Store(self._owner_changed) for kind in CHILDREN}
        self.replica_sets = Store(self._owner_changed, replica_set_trim)
        self.complaints = Complaints(self._pod_changed)
        self.pods = Store(self._owner_changed, pod_trim, gone=self.complaints.forget)
        self.capacity = CapacityCache()
        self.informers = tuple(self._informers(settings.watch_namespaces))
        self._tasks: list[asyncio.Task[None]] = []

    def _informers(self, namespaces: tuple[str, ...]) -> Iterator[Informer]:
        for namespace in namespaces or (None,):
            for name, kind in CHILDREN.items():
                yield self._informer(kind, namespace, self.children[name], MANAGED)
            yield self._informer(REPLICA_SET, namespace, self.replica_sets, MANAGED)
            yield self._informer(POD, namespace, self.pods, MANAGED)
            yield self._informer(EVENT, namespace, self.complaints, WARNINGS, optional=True)
        if not namespaces:
            # Free GPUs are a matter of the whole cluster: with a list of namespaces there are no rights to it.
            yield self._informer(NODE, None, self.capacity.nodes, {}, optional=True)
            yield self._informer(POD, None, self.capacity.pods, NOT_ENDED, optional=True)

    def _informer(
        self, kind: Kind, namespace: str | None, sink: Sink, selector: Mapping[str, str], *, optional: bool = False
    ) -> Informer:
        return Informer(self._api, kind, namespace, sink, self._telemetry, selector=selector, optional=optional)

    def _owner_changed(self, owner: Key) -> None:
        if key := self.deployments.key_of_owner(owner):
            self._changed(key)

    def _pod_changed(self, pod: Key) -> None:
        manifest = self.pods.get(pod)
        if manifest is not None:
            label = (manifest["metadata"].get("labels") or {}).get(names.LABEL_DEPLOYMENT, "")
            self._owner_changed((pod[0], label))

    def start(self) -> None:
        self._tasks = [asyncio.create_task(i.run(), name=f"informer {i.kind.plural}") for i in self.informers]

    async def synced(self) -> None:
        """Every listing is complete. Raises as `ended`."""
        listing = asyncio.gather(*(informer.synced.wait() for informer in self.informers))
        ending = asyncio.ensure_future(self.ended())
        try:
            await asyncio.wait((listing, ending), return_when=asyncio.FIRST_COMPLETED)
            if not listing.done():
                ending.result()
        finally:
            listing.cancel()
            ending.cancel()
            await asyncio.gather(listing, ending, return_exceptions=True)

    async def ended(self) -> None:
        """Waits for an informer that ends, which none does by itself. Raises what ended it, else RuntimeError."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        first = done.pop()
        await first
        raise RuntimeError(f"{first.get_name()} ended by itself")

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def ages(self, now: float) -> dict[str, float]:
        """Seconds since each informer last heard of the API server, the worst per kind; without those that may not."""
        ages: dict[str, float] = {}
        for informer in self.informers:
            if informer.heard is not None:
                ages[informer.kind.plural] = max(now - informer.heard, ages.get(informer.kind.plural, 0.0))
        return ages
