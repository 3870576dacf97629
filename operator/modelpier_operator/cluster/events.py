"""Writes Events: what people see of a ModelDeployment in `kubectl describe`. Called by `reconcile`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from modelpier_operator import names
from modelpier_operator.cluster import errors
from modelpier_operator.cluster.client import Api
from modelpier_operator.cluster.kinds import EVENT
from modelpier_operator.decide import clock
from modelpier_operator.decide.facts import Manifest, Tiding

log = logging.getLogger(__name__)


class EventWriter:
    def __init__(self, api: Api) -> None:
        self._api = api

    async def write(self, md: Manifest, tidings: Iterable[Tiding], now: datetime) -> None:
        """What was told already is not told again. Nothing waits for Events: one that is refused is logged and left.

        Raises NotLeaderError.
        """
        namespace = md["metadata"]["namespace"]
        for tiding in tidings:
            try:
                await self._api.write("POST", EVENT.collection(namespace), _event(md, tiding, clock.second(now)))
            except errors.AlreadyExistsError:
                log.debug("%s/%s was told already", namespace, tiding.name)
            except errors.ApiError as error:
                log.warning("%s/%s: an Event could not be written: %s", namespace, md["metadata"]["name"], error)


def _event(md: Manifest, tiding: Tiding, moment: str) -> dict[str, Any]:
    metadata = md["metadata"]
    about = {"apiVersion": names.API_VERSION, "kind": names.KIND}
    about |= {key: metadata[key] for key in ("name", "namespace", "uid")}
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"name": tiding.name, "namespace": metadata["namespace"]},
        "involvedObject": about,
        "type": tiding.kind,
        "reason": tiding.reason,
        "message": tiding.message,
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
