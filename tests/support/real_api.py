"""A real API server under the same hand as `support.api`: what users, controllers and kubelets do there.

For the convergence suite and the tests of the control plane. No controller manager is needed: garbage is collected by
the same rule as in memory, pods are made and ended by a `World`.
"""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from modelpier_operator.cluster import config
from modelpier_operator.cluster.kinds import CHILDREN, MODEL_DEPLOYMENT, POD, Kind
from support.api import ALL

Object = dict[str, Any]
OWNED = (*CHILDREN.values(), POD)
OF_EVERY_NAMESPACE = ("default", "kube-root-ca.crt")
MERGE_PATCH = "application/merge-patch+json"


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
        self.news: dict[tuple[str, str, str], str] = {}
        """What was written here: (plural, namespace, name) -> resourceVersion, empty for what went."""
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
        # A World says of its pods only by name which Deployment they are of.
        kept["ownerReferences"] = [owner for owner in metadata.get("ownerReferences") or () if "uid" in owner]
        body = {**manifest, "kind": kind.kind, "apiVersion": kind.api_version, "metadata": kept}
        return self._noted(plural, self.call("POST", kind.collection(metadata.get("namespace")), body))

    def _noted(self, plural: str, made: Object) -> Object:
        """An object whose finalizer was its last is gone with the answer."""
        metadata = made["metadata"]
        gone = metadata.get("deletionTimestamp") and not metadata.get("finalizers") and plural != POD.plural
        key = plural, metadata.get("namespace", ""), metadata["name"]
        self.news[key] = "" if gone else metadata["resourceVersion"]
        return _complete(ALL[plural], made)

    def replace(self, plural: str, manifest: Object) -> Object:
        if plural == POD.plural:
            return self._replace_pod(manifest)
        metadata = {k: v for k, v in manifest["metadata"].items() if k != "resourceVersion"}
        path = ALL[plural].item((metadata["namespace"], metadata["name"]))
        return self._noted(plural, self.call("PUT", path, {**manifest, "metadata": metadata}))

    def patch(self, plural: str, namespace: str, name: str, changes: Object) -> Object:
        """A merge patch: it does not fail because somebody else wrote meanwhile."""
        return self._noted(plural, self.call("PATCH", ALL[plural].item((namespace, name)), changes, MERGE_PATCH))

    def delete(self, plural: str, namespace: str, name: str) -> None:
        try:
            answer = self.call("DELETE", ALL[plural].item((namespace, name)), {"gracePeriodSeconds": 0})
        except requests.HTTPError as error:
            if error.response.status_code != 404:
                raise
        else:
            held = (answer.get("metadata") or {}).get("finalizers")
            self.news[plural, namespace, name] = answer["metadata"]["resourceVersion"] if held else ""

    def collect_garbage(self) -> None:
        """What is owned by nobody that is there goes, as the garbage collector would have it."""
        everything = [(kind, item) for kind in (MODEL_DEPLOYMENT, *OWNED) for item in self.list(kind.plural)]
        alive = {item["metadata"]["uid"] for _, item in everything}
        for kind, item in everything:
            owners = {r["uid"] for r in item["metadata"].get("ownerReferences") or ()}
            if owners and not owners & alive and not item["metadata"].get("deletionTimestamp"):
                self.delete(kind.plural, item["metadata"]["namespace"], item["metadata"]["name"])

    def clear(self, namespace: str) -> None:
        """Nothing that users or the operator made is left."""
        for kind in (MODEL_DEPLOYMENT, *OWNED):
            for item in self.list(kind.plural, namespace):
                name = item["metadata"]["name"]
                if item["metadata"].get("finalizers"):
                    self.patch(kind.plural, namespace, name, {"metadata": {"finalizers": None}})
                if name not in OF_EVERY_NAMESPACE:
                    self.delete(kind.plural, namespace, name)

    # ------------------------------------------------------------------------------------------ as a kubelet
    def _replace_pod(self, manifest: Object) -> Object:
        metadata = manifest["metadata"]
        path = POD.item((metadata["namespace"], metadata["name"]))
        live = self.call("GET", path)
        node = manifest["spec"].get("nodeName")
        if node and not live["spec"].get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": node}
            self.call("POST", f"{path}/binding", {"metadata": {"name": metadata["name"]}, "target": target})
        live = self.call("PATCH", f"{path}/status", {"status": manifest["status"]}, MERGE_PATCH)
        if (end := metadata.get("deletionTimestamp")) and not live["metadata"].get("deletionTimestamp"):
            # A World's clock is years ahead of the server's, which counts the seconds of grace.
            left = datetime.fromisoformat(end) - datetime.now(UTC)
            live = self.call("DELETE", path, {"gracePeriodSeconds": round(left.total_seconds())})
        return self._noted(POD.plural, live)


def _complete(kind: Kind, item: Object) -> Object:
    """As in memory: lists say what they hold, and a pod has conditions from the start."""
    whole = {**item, "kind": kind.kind, "apiVersion": kind.api_version}
    return {**whole, "status": {"conditions": [], **item.get("status", {})}} if kind == POD else whole
