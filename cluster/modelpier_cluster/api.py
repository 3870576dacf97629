"""The few questions that the driver asks an API server, with the standard library only."""

import base64
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from modelpier_cluster.errors import ClusterError

STRANGERS = (7, 18, 19, 20, 21)
"""OpenSSL's numbers for a certificate of another authority: while ports are taken and given up, another cluster's API
server may be the one that answers."""


@dataclass(frozen=True)
class ApiClient:
    """Reads from the API server of a kubeconfig that pki.py wrote."""

    url: str
    token: str
    authority: str

    @classmethod
    def of(cls, kubeconfig: Path) -> Self:
        data = json.loads(kubeconfig.read_text())
        cluster = data["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        return cls(cluster["server"], data["users"][0]["user"]["token"], authority)

    def get(self, path: str, timeout: float = 10.0) -> str | None:
        """The body of the answer; None when the server cannot be reached or does not answer 200 within `timeout` s.

        Raises ClusterError when its certificate will never do: waiting would end with a message that misleads.
        """
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})  # noqa: S310
        context = ssl.create_default_context(cadata=self.authority)
        # A proxy named in the environment is meant for the outside world, never for this machine's own cluster.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(request, timeout=timeout) as answer:
                body: bytes = answer.read()
                return body.decode()
        except OSError as error:  # urllib's and ssl's errors are OSErrors
            self._refuse_certificate(getattr(error, "reason", None))
            return None

    def _refuse_certificate(self, reason: object) -> None:
        if isinstance(reason, ssl.SSLCertVerificationError) and reason.verify_code not in STRANGERS:
            raise ClusterError(
                f"the certificate of {self.url} is refused: {reason.verify_message}. Right the clock if it is wrong; a "
                "cluster that an older version of this program started needs `down` and `up` once"
            ) from reason

    def object(self, path: str) -> dict[str, Any] | None:
        text = self.get(path)
        return json.loads(text) if text else None

    def ready(self) -> bool:
        return self.get("/readyz") == "ok"

    def heard_from(self, node: str, since: datetime) -> bool:
        """Whether the node's kubelet renewed its lease after `since`."""
        lease = self.object(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}")
        return lease is not None and datetime.fromisoformat(lease["spec"]["renewTime"]) > since

    def node_ready(self, name: str) -> bool:
        conditions = self._node_status(name).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def node_gpus(self, name: str) -> int:
        """The GPUs that pods may have on the node."""
        return int(self._node_status(name).get("allocatable", {}).get("nvidia.com/gpu", 0))

    def _node_status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = (self.object(f"/api/v1/nodes/{name}") or {}).get("status", {})
        return status


def is_ready(kubeconfig: Path) -> bool:
    """Whether the API server of `kubeconfig` says that it is ready; False while the file is not there yet."""
    try:
        client = ApiClient.of(kubeconfig)
    except OSError:
        return False
    return client.ready()
