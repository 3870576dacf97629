"""Writes the status of a ModelDeployment: last in a pass, in one request, and only when it changed. Called by
`reconcile`.
"""

from __future__ import annotations

from modelpier_operator.cluster import errors
from modelpier_operator.cluster.client import MANAGER, MERGE_PATCH, Api
from modelpier_operator.cluster.compare import merge_patch
from modelpier_operator.cluster.deployments import Deployments
from modelpier_operator.cluster.kinds import MODEL_DEPLOYMENT, key_of
from modelpier_operator.decide.facts import Manifest


class StatusWriter:
    def __init__(self, api: Api, deployments: Deployments) -> None:
        self._api, self._deployments = api, deployments

    async def write(self, md: Manifest, status: Manifest) -> bool:
        """Whether there was something to write. The answer is overlaid on what is known: it is never written twice.

        A ModelDeployment that is gone, or is another one by now, needs no status. Raises ApiError for the rest.
        """
        if md.get("status") == status:
            return False
        key, uid = key_of(md), md["metadata"]["uid"]
        # The server refuses a uid that is not the object's: a successor of the same name keeps its own status.
        body = {"metadata": {"uid": uid}, "status": merge_patch(md.get("status"), status)}
        path = f"{MODEL_DEPLOYMENT.item(key)}/status"
        try:
            answer = await self._api.write("PATCH", path, body, query=MANAGER, content_type=MERGE_PATCH)
        except errors.NotFoundError:
            self._deployments.forget(key, uid)
            return False
        except errors.InvalidError as error:
            if "metadata.uid" in error.fields:
                return False
            raise
        self._deployments.learn(answer, status)
        return True
