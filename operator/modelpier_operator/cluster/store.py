"""What the operator knows of the objects of one kind: compact JSON, found by the ModelDeployment that they belong to.

An `informer` fills it; `apply` adds the answers to its own writes, so that a pass never acts on a state that is older
than what the operator itself did; `observe` reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import orjson

from modelpier_operator import names
from modelpier_operator.cluster.kinds import Key
from modelpier_operator.cluster.ownership import created_by_update

Object = dict[str, Any]
Trim = Callable[[Object], Object]
Changed = Callable[[Key], None]
"""Called with (namespace, value of the label that names the ModelDeployment)."""


class Sink(Protocol):
    """What an informer fills. Versions are resourceVersions, which order the objects of one kind (KEP-5504)."""

    def put(self, manifest: Object) -> None: ...

    def drop(self, manifest: Object) -> None: ...

    def retain(self, namespace: str | None, seen: set[Key], version: int) -> None:
        """Forget all objects of `namespace` (None: all) outside of `seen` that are not newer than `version`."""

    def advance(self, namespace: str | None, version: int) -> None:
        """Everything up to `version` has been put or dropped."""

    def denied(self) -> None:
        """There is no right to list or watch."""


class Entry(NamedTuple):
    uid: str
    version: int
    owner: Key
    raw: bytes
    posted: bool = False
    """Its fields are recorded as created by POST: see `ownership`."""


def version_of(manifest: Object) -> int:
    return int(manifest["metadata"].get("resourceVersion") or 0)


def compact(manifest: Object) -> bytes:
    """JSON to be kept: orjson's own answer holds on to its whole buffer, three times the text on average."""
    return bytes(memoryview(orjson.dumps(manifest)))


def without_bulk(manifest: Object) -> Object:
    """Without managedFields, a third of most objects, which nobody reads from here."""
    return {**manifest, "metadata": {k: v for k, v in manifest["metadata"].items() if k != "managedFields"}}


def pod_trim(manifest: Object) -> Object:
    """What a pod is asked for: where it runs, how it is, what its containers may use."""
    spec = manifest.get("spec") or {}
    containers = [{"name": c["name"], "resources": c.get("resources") or {}} for c in spec.get("containers") or ()]
    return {**without_bulk(manifest), "spec": {"nodeName": spec.get("nodeName") or "", "containers": containers}}


def replica_set_trim(manifest: Object) -> Object:
    """Whether pods could be made, and how many: the template stands in the Deployment."""
    return {**without_bulk(manifest), "spec": {"replicas": (manifest.get("spec") or {}).get("replicas", 0)}}


class Store:
    """`gone` is called with the uid of an object whose end the API server has shown."""

    def __init__(
        self, changed: Changed, trim: Trim = without_bulk, gone: Callable[[str], None] = lambda _uid: None
    ) -> None:
        self._changed, self._trim, self._gone = changed, trim, gone
        self._entries: dict[Key, Entry] = {}
        self._owned: dict[Key, set[Key]] = {}
        self._positions: dict[str, int] = {}
        self._buried: dict[str, Key] = {}
        """By uid: objects that we deleted and whose end the watch has not shown yet."""

    def __len__(self) -> int:
        return len(self._entries)

    # ------------------------------------------------------------------------------------------ reading
    def get(self, key: Key) -> Object | None:
        entry = self._entries.get(key)
        return orjson.loads(entry.raw) if entry else None

    def posted(self, key: Key) -> bool:
        """Whether its fields are still recorded as created by POST."""
        entry = self._entries.get(key)
        return entry is not None and entry.posted

    def owned_by(self, owner: Key) -> Iterator[Object]:
        """Objects labelled as belonging to a ModelDeployment, by name. `owner`: (namespace, label value)."""
        for key in sorted(self._owned.get(owner, ())):
            yield orjson.loads(self._entries[key].raw)

    # ------------------------------------------------------------------------------------------ filling, by an informer
    def put(self, manifest: Object) -> None:
        if self._set(manifest):
            self._changed(_owner(manifest))

    def drop(self, manifest: Object) -> None:
        metadata = manifest["metadata"]
        self._buried.pop(metadata["uid"], None)
        self._gone(metadata["uid"])
        key = metadata["namespace"], metadata["name"]
        entry = self._entries.get(key)
        if entry is not None and entry.uid == metadata["uid"]:
            self._remove(key)
        # Our own deletion took it out of the store already, but only now is its name free again.
        self._changed(_owner(manifest))

    def retain(self, namespace: str | None, seen: set[Key], version: int) -> None:
        scope = [key for key in self._entries if namespace is None or key[0] == namespace]
        for key in scope:
            entry = self._entries[key]
            if key not in seen and entry.version <= version:
                self._remove(key)
                self._gone(entry.uid)
                self._changed(entry.owner)
        self._exhume(namespace, seen)

    def advance(self, namespace: str | None, version: int) -> None:
        name = namespace or ""
        self._positions[name] = max(version, self._positions.get(name, 0))

    def denied(self) -> None:
        """The kinds kept here are needed: the informer goes on trying, and says so."""

    # ------------------------------------------------------------------------------------------ own writes, by apply
    def learn(self, manifest: Object) -> None:
        """The answer to a write of ours: newer than what the watch has brought, and not news to anybody."""
        key = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        if key in self._entries or version_of(manifest) > self._position(key[0]):
            self._set(manifest)

    def bury(self, key: Key, uid: str) -> None:
        """Our deletion was carried out: an older event must not bring the object back."""
        entry = self._entries.get(key)
        if entry is not None and entry.uid == uid:
            self._buried[uid] = key
            self._remove(key)

    # ------------------------------------------------------------------------------------------ inside
    def _position(self, namespace: str) -> int:
        return max(self._positions.get("", 0), self._positions.get(namespace, 0))

    def _set(self, manifest: Object) -> bool:
        metadata = manifest["metadata"]
        uid, version = metadata["uid"], version_of(manifest)
        key = metadata["namespace"], metadata["name"]
        old = self._entries.get(key)
        if uid in self._buried or (old is not None and old.version >= version):
            return False
        if old is not None:
            self._remove(key)
        owner, posted = _owner(manifest), created_by_update(manifest)
        self._entries[key] = Entry(uid, version, owner, compact(self._trim(manifest)), posted)
        self._owned.setdefault(owner, set()).add(key)
        return True

    def _exhume(self, namespace: str | None, seen: set[Key]) -> None:
        """A listing without an object is all that will ever be heard of its end, where the watch missed it."""
        for uid, key in tuple(self._buried.items()):
            if namespace in (None, key[0]) and (key not in seen or self._is_another(key, uid)):
                del self._buried[uid]

    def _is_another(self, key: Key, uid: str) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.uid != uid

    def _remove(self, key: Key) -> None:
        entry = self._entries.pop(key)
        siblings = self._owned[entry.owner]
        siblings.discard(key)
        if not siblings:
            del self._owned[entry.owner]


def _owner(manifest: Object) -> Key:
    metadata = manifest["metadata"]
    return metadata["namespace"], (metadata.get("labels") or {}).get(names.LABEL_DEPLOYMENT, "")
