"""The ModelDeployments that exist, as the API server has them: kopf's watch feeds it, our own status writes are
overlaid.

kopf loses deletions that fall into a gap of its watch, and a watch of it that died in silence looks like peace; so a
rare listing of names is compared with what is known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from modelpier_operator import names
from modelpier_operator.cluster.kinds import Key, key_of
from modelpier_operator.cluster.store import Entry, compact, version_of

Object = dict[str, Any]


@dataclass(frozen=True)
class Differences:
    """What the listing of names shows that kopf's watch did not."""

    gone: tuple[Key, ...]
    late: tuple[Key, ...]
    """There, but unknown or newer than what kopf delivered."""


class Deployments:
    """`changed` is called with the key of each ModelDeployment that is new, different or gone."""

    def __init__(self, changed: Callable[[Key], None]) -> None:
        self._changed = changed
        self._entries: dict[Key, Entry] = {}
        self._keys: dict[Key, Key] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._entries))

    def get(self, key: Key) -> Object | None:
        entry = self._entries.get(key)
        return orjson.loads(entry.raw) if entry else None

    def key_of_owner(self, owner: Key) -> Key | None:
        """The key for (namespace, label value), as its children carry it."""
        return self._keys.get(owner)

    def seen(self, manifest: Object) -> None:
        """An event or a listing of kopf's."""
        if self._set(manifest):
            self._changed(key_of(manifest))

    def deleted(self, manifest: Object) -> None:
        key = key_of(manifest)
        entry = self._entries.get(key)
        if entry is not None and entry.uid == manifest["metadata"]["uid"]:
            self._remove(key)

    def learn(self, manifest: Object, status: Mapping[str, Any]) -> None:
        """The answer to our write of `status`, if the object is known.

        Others may have changed the object right before, which the watch has yet to bring. Their event is older than
        the answer, so it will be no news then: it is news now.
        """
        key = key_of(manifest)
        known = self.get(key)
        if known is not None and self._set(manifest) and _matter({**known, "status": status}) != _matter(manifest):
            self._changed(key)

    def forget(self, key: Key, uid: str) -> None:
        """The API server says that this one does not exist."""
        entry = self._entries.get(key)
        if entry is not None and entry.uid == uid:
            self._remove(key)

    def compare(self, listed: Iterable[Object], version: int) -> Differences:
        """`listed`: name, namespace, uid and resourceVersion of all; `version`: of the listing."""
        there = {key_of(item): item["metadata"] for item in listed}
        gone = [
            key
            for key, entry in self._entries.items()
            if entry.version <= version and (key not in there or there[key]["uid"] != entry.uid)
        ]
        late = [key for key, metadata in there.items() if self._is_late(key, int(metadata["resourceVersion"]))]
        return Differences(tuple(gone), tuple(late))

    def remove_gone(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if key in self._entries:
                self._remove(key)

    def _is_late(self, key: Key, version: int) -> bool:
        entry = self._entries.get(key)
        return entry is None or entry.version < version

    def _set(self, manifest: Object) -> bool:
        metadata = manifest["metadata"]
        key, version = key_of(manifest), version_of(manifest)
        old = self._entries.get(key)
        if old is not None and old.version >= version:
            return False
        owner = key[0], names.label_value(key[1])
        kept = {**manifest, "metadata": {name: value for name, value in metadata.items() if name != "managedFields"}}
        self._entries[key] = Entry(metadata["uid"], version, owner, compact(kept))
        self._keys[owner] = key
        return True

    def _remove(self, key: Key) -> None:
        entry = self._entries.pop(key)
        self._keys.pop(entry.owner, None)
        self._changed(key)


def _matter(manifest: Object) -> Object:
    """Without what differs after every write."""
    metadata = manifest["metadata"]
    told = {name: value for name, value in metadata.items() if name not in ("managedFields", "resourceVersion")}
    return {**manifest, "metadata": told}
