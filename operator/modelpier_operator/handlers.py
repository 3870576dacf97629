"""The shell that kopf is here: credentials, settings, and the watch of ModelDeployments, which only feeds the queue.

Nothing of kopf's is ever stored on an object: no finalizer, no annotation, no Event. Called by `process`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import kopf

from modelpier_operator import names
from modelpier_operator.cluster.config import Access
from modelpier_operator.cluster.deployments import Deployments

WATCH_SECONDS = 300
"""The server ends kopf's watches after so long; a watch that died in silence is over then as well."""


class NothingStored(kopf.DiffBaseStorage):
    """kopf's memory of what it handled last: not needed, and it would double every object."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return {}

    def store(self, **_: Any) -> None:
        return None


class NoProgress(kopf.ProgressStorage):
    """kopf's memory of unfinished handlers: there are none that could be unfinished."""

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


def registry(deployments: Deployments, access: Access) -> kopf.OperatorRegistry:
    """Kopf's handlers for one process. A registry of our own keeps kopf from looking for other client libraries."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(
            server=access.server,
            ca_data=access.ca,
            insecure=access.insecure or None,
            token=access.bearer(),
            certificate_data=access.certificate,
            private_key_data=access.private_key,
        )

    @kopf.on.startup(registry=handlers)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.peering.standalone = True
        settings.watching.chunk_size = 500
        settings.watching.server_timeout = WATCH_SECONDS
        settings.watching.client_timeout = WATCH_SECONDS + 10
        settings.persistence.diffbase_storage = NothingStored()
        settings.persistence.progress_storage = NoProgress()

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=handlers)
    async def seen(event: Mapping[str, Any], **_: Any) -> None:
        # Not a plain function: kopf would call it in a thread, and caches and queue belong to the event loop.
        manifest = dict(event["object"])
        if event["type"] == "DELETED":
            deployments.deleted(manifest)
        else:
            deployments.seen(manifest)

    return handlers


async def spawn(
    deployments: Deployments, access: Access, namespaces: tuple[str, ...], stop: asyncio.Event
) -> asyncio.Task[None]:
    """Starts kopf in this event loop; the task ends some moments after `stop` is set."""
    tasks = await kopf.spawn_tasks(
        registry=registry(deployments, access),
        clusterwide=not namespaces,
        namespaces=namespaces,
        standalone=True,
        stop_flag=stop,
    )
    return asyncio.create_task(kopf.run_tasks(tasks), name="kopf")
