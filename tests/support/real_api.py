"""A real API server under the same hand as `support.api`: what users, controllers and kubelets do there.

For the convergence suite and the tests of the control plane. No controller manager is needed: garbage is collected by
the same rule as in memory, pods are made by a `World`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import requests

from modelpier_operator.cluster import config
from modelpier_operator.cluster.kinds import CHILDREN, MODEL_DEPLOYMENT, POD, Kind
from support.api import ALL

Object = dict[str, Any]
OWNED = (*CHILDREN.values(), POD)


class ApiServer:
    """`kubeconfig` of an administrator. Raises requests.HTTPError for what is refused."""

    def __init__(self, kubeconfig: Path) -> None:
        self.access = config.from_kubeconfig(kubeconfig)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {self.access.token}"
        with tempfile.NamedTemporaryFile("wb", suffix=".crt", delete=False) as file:
            file.write(self.access.ca or b"")
        self._authority = Path(file.name)
        self._collected: set[str] = set()
        self._session.verify = file.name

    def close(self) -> None:
        self._session.close()
        self._authority.unlink(missing_ok=True)

    def call(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Object:
        answer = self._session.request(
            method,
            self.access.server + path,
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type},
            timeout=30,
        )
        if not answer.ok:
            raise requests.HTTPError(f"{method} {path}: {answer.status_code} {answer.text}", response=answer)
        decoded: Object = answer.json()
        return decoded

    # ------------------------------------------------------------------------------------------ as in memory
    def list(self, plural: str, namespace: str | None = None) -> list[Object]:
        kind = ALL[plural]
        items = self.call("GET", kind.collection(namespace))["items"]
        return [_complete(kind, item) for item in items]

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        try:
            return _complete(ALL[plural], self.call("GET", ALL[plural].item((namespace, name))))
        except requests.HTTPError as error:
            if error.response.status_code == 404:
                return None
            raise

    def create(self, plural: str, manifest: Object) -> Object:
        kind, metadata = ALL[plural], manifest["metadata"]
        kept = {k: v for k, v in metadata.items() if k in ("name", "namespace", "labels", "annotations")}
        kept["ownerReferences"] = [self._owner(o, metadata) for o in metadata.get("ownerReferences") or ()]
        body = {**manifest, "kind": kind.kind, "apiVersion": kind.api_version, "metadata": kept}
        return self.call("POST", kind.collection(metadata.get("namespace")), body)

    def _owner(self, owner: Object, metadata: Object) -> Object:
        """A World says of its pods only which Deployment they are of."""
        live = self.get("deployments", metadata["namespace"], owner["name"]) if "uid" not in owner else None
        return {**owner, "apiVersion": "apps/v1", "uid": live["metadata"]["uid"]} if live else owner

    def replace(self, plural: str, manifest: Object) -> Object:
        if plural == POD.plural:
            return self._replace_pod(manifest)
        metadata = {k: v for k, v in manifest["metadata"].items() if k != "resourceVersion"}
        path = ALL[plural].item((metadata["namespace"], metadata["name"]))
        if plural == MODEL_DEPLOYMENT.plural:
            # A user's edit must not fail because the operator wrote the status meanwhile.
            return self.call("PATCH", path, {"spec": manifest["spec"]}, "application/merge-patch+json")
        return self.call("PUT", path, {**manifest, "metadata": metadata})

    def delete(self, plural: str, namespace: str, name: str) -> None:
        if self.get(plural, namespace, name) is not None:
            self.call("DELETE", ALL[plural].item((namespace, name)), {"gracePeriodSeconds": 0})

    def collect_garbage(self) -> None:
        """What is owned by nobody that is there goes, as the garbage collector would have it."""
        alive = {item["metadata"]["uid"] for item in self.list(MODEL_DEPLOYMENT.plural)}
        if alive == self._collected:
            return
        self._collected = alive
        everything = [(kind, item) for kind in OWNED for item in self.list(kind.plural)]
        alive = alive | {item["metadata"]["uid"] for _, item in everything}
        for kind, item in everything:
            owners = {r["uid"] for r in item["metadata"].get("ownerReferences") or ()}
            if owners and not owners & alive:
                self._delete(kind, item)

    def compact(self) -> None:
        """A real watch that breaks off goes on where it was: there is nothing to be lost here."""

    def _delete(self, kind: Kind, item: Object) -> None:
        self.delete(kind.plural, item["metadata"]["namespace"], item["metadata"]["name"])

    # ------------------------------------------------------------------------------------------ as a kubelet
    def _replace_pod(self, manifest: Object) -> Object:
        metadata = manifest["metadata"]
        path = POD.item((metadata["namespace"], metadata["name"]))
        live = self.call("GET", path)
        node = manifest["spec"].get("nodeName")
        if node and not live["spec"].get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": node}
            self.call("POST", f"{path}/binding", {"metadata": {"name": metadata["name"]}, "target": target})
        status = json.dumps({"status": manifest["status"]})
        live = self.call("PATCH", f"{path}/status", json.loads(status), "application/merge-patch+json")
        if metadata.get("deletionTimestamp") and not live["metadata"].get("deletionTimestamp"):
            self.call("DELETE", path, {"gracePeriodSeconds": 30})
        return live


def _complete(kind: Kind, item: Object) -> Object:
    """As in memory: lists say what they hold, and a pod has conditions from the start."""
    whole = {**item, "kind": kind.kind, "apiVersion": kind.api_version}
    return {**whole, "status": {"conditions": [], **item.get("status", {})}} if kind == POD else whole
