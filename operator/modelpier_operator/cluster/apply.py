"""Brings children to what was decided: creates, changes and deletes, each write only where it is needed and safe.

An object that this ModelDeployment does not control is never touched, whatever its name. Each write is guarded by what
it assumes: a creation fails where something exists, a change and a deletion name the uid that they mean.
Called by `reconcile`; every answer goes into the caches at once, so that nothing is written twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from modelpier_operator.cluster import errors, ownership
from modelpier_operator.cluster.caches import Caches
from modelpier_operator.cluster.client import APPLY, JSON_PATCH, MANAGER, Api
from modelpier_operator.cluster.compare import contains, stamped
from modelpier_operator.cluster.kinds import (
    CHILDREN,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    MODEL_DEPLOYMENT,
    Key,
    Kind,
    controller,
    key_of,
)
from modelpier_operator.decide.facts import Manifest, Problem, Ref
from modelpier_operator.names import ANNOTATION_APPLIED, KIND
from modelpier_operator.telemetry import Telemetry

log = logging.getLogger(__name__)
Object = dict[str, Any]

FORCE = {**MANAGER, "force": "true"}
WITHOUT_DEFAULTS = (CONFIG_MAP, CONTROLLER_REVISION)
"""The server adds no field to these: what an apply leaves over in the record of the POST is truly unwanted."""
STUBBORN_LIMIT = 4096
DEPLOYMENTS = 2
"""The last wave."""

NAME_CONFLICT = "NameConflict"
QUOTA_EXCEEDED = "QuotaExceeded"
FORBIDDEN = "Forbidden"
INVALID = "Invalid"
NAMESPACE_TERMINATING = "NamespaceTerminating"


class OwnerGoneError(Exception):
    """The ModelDeployment does not exist any more, or is another one of the same name."""


@dataclass(frozen=True)
class Applied:
    """`wrote`: something was sent and accepted. `waiting`: an object of that name is still on its way out."""

    problems: tuple[Problem, ...] = ()
    wrote: bool = False
    waiting: bool = False

    def __or__(self, other: Applied) -> Applied:
        return Applied(self.problems + other.problems, self.wrote or other.wrote, self.waiting or other.waiting)


NOTHING, WROTE, WAITING = Applied(), Applied(wrote=True), Applied(waiting=True)


@dataclass(frozen=True)
class Target:
    """One child as it must be, for the ModelDeployment `owner`."""

    owner: Manifest
    kind: Kind
    manifest: Object

    @property
    def key(self) -> Key:
        return key_of(self.manifest)

    @property
    def owner_uid(self) -> str:
        return str(self.owner["metadata"]["uid"])

    def problem(self, reason: str, message: str) -> Applied:
        return Applied(problems=(Problem(Ref(self.kind.kind, self.key[1]), reason, message),))


class Applier:
    def __init__(self, api: Api, caches: Caches, telemetry: Telemetry) -> None:
        self._api, self._caches, self._telemetry = api, caches, telemetry
        self._stubborn: OrderedDict[str, tuple[str, Object]] = OrderedDict()
        """By uid: the hash that was applied, and the object that came of it and did not contain what was wanted."""

    async def children(self, md: Manifest, wanted: Iterable[Manifest], unwanted: Iterable[Ref]) -> Applied:
        """In waves: memory, then what pods need, then Deployments, deletions last; a wave with problems is the last
        one. Memory comes first because what follows rests on it: a plan that names a digest nobody has noted would be
        contradicted by the next one after a crash in between.

        Deletions rest on memory and on the Service, but not on Deployments: what still serves is not unwanted before
        enough others are seen to serve. So a Deployment that is refused for ever keeps nothing else alive.

        Raises ApiError for what another try may mend, OwnerGoneError before anything is created for nobody.
        """
        targets = [Target(md, CHILDREN[manifest["kind"]], stamped(manifest)) for manifest in wanted]
        # Without a status one is written at the end of this very pass, which names the uid: whatever was made for a
        # ModelDeployment that is gone stays with the garbage collector then, and is not made again.
        sure = not md.get("status")
        result = NOTHING
        for number in sorted({_wave(target) for target in targets}):
            wave = [target for target in targets if _wave(target) == number]
            if not sure and any(self._live(target) is None for target in wave):
                await self._confirm(md)
                sure = True
            result |= await _all(self._bring(target) for target in wave)
            if result.problems and number != DEPLOYMENTS:
                return result
        return result | await _all(self._delete(md, ref) for ref in unwanted)

    async def _confirm(self, md: Manifest) -> None:
        """A lost deletion of the ModelDeployment must not make its children come back for ever."""
        key, uid = key_of(md), md["metadata"]["uid"]
        try:
            live = await self._api.get(MODEL_DEPLOYMENT.item(key))
        except errors.NotFoundError as error:
            self._caches.deployments.forget(key, uid)
            raise OwnerGoneError(f"{key} does not exist any more") from error
        if live["metadata"]["uid"] != uid or live["metadata"].get("deletionTimestamp"):
            self._caches.deployments.seen(live)
            raise OwnerGoneError(f"{key} is another one, or being deleted")

    # ------------------------------------------------------------------------------------------ one child
    def _live(self, target: Target) -> Object | None:
        return self._caches.children[target.kind.kind].get(target.key)

    async def _bring(self, target: Target) -> Applied:
        live = self._live(target)
        try:
            return await self._create(target) if live is None else await self._compare(target, live)
        except errors.RefusedError as error:
            return _refusal(target, error)

    async def _compare(self, target: Target, live: Object) -> Applied:
        owner = controller(live)
        if owner.get("uid") != target.owner_uid:
            return _foreign(target, owner)
        if live["metadata"].get("deletionTimestamp"):
            return WAITING
        if _is_applied(target, live) or self._is_stubborn(target, live):
            return NOTHING
        return await self._change(target, live)

    async def _create(self, target: Target) -> Applied:
        path = target.kind.collection(target.key[0])
        try:
            self._learn(target, await self._api.write("POST", path, target.manifest, query=MANAGER))
        except errors.AlreadyExistsError:
            # Somebody else's, ours without our labels, or ours of a moment ago: the caches show none of them.
            live = await self._api.get(target.kind.item(target.key))
            if controller(live).get("uid") == target.owner_uid:
                self._learn(target, live)
            return await self._compare(target, live)
        return WROTE

    async def _change(self, target: Target, live: Object) -> Applied:
        uid = live["metadata"]["uid"]
        if self._caches.children[target.kind.kind].posted(target.key) and target.kind not in WITHOUT_DEFAULTS:
            await self._fold(target, await self._api.get(target.kind.item(target.key)), uid)
        answer = await self._apply(target, uid)
        if target.kind in WITHOUT_DEFAULTS and ownership.left_over(answer):
            await self._fold(target, answer, uid)
            answer = await self._apply(target, uid)
        self._learn(target, answer)
        self._remember(target, answer)
        return WROTE

    async def _apply(self, target: Target, uid: str) -> Object:
        manifest = {**target.manifest, "metadata": {**target.manifest["metadata"], "uid": uid}}
        try:
            path = target.kind.item(target.key)
            return await self._api.write("PATCH", path, manifest, query=FORCE, content_type=APPLY)
        except errors.InvalidError as error:
            if "metadata.uid" in error.fields:
                raise errors.ConflictError(f"{target.kind.kind} {target.key} is another one now") from error
            raise

    async def _fold(self, target: Target, live: Object, uid: str) -> None:
        """See `ownership`: once in the life of an object."""
        if live["metadata"]["uid"] != uid:
            raise errors.ConflictError(f"{target.kind.kind} {target.key} is another one now")
        if not ownership.created_by_update(live):
            return
        patch = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
            {"op": "replace", "path": "/metadata/managedFields", "value": ownership.folded(live)},
        ]
        await self._api.write("PATCH", target.kind.item(target.key), patch, query=MANAGER, content_type=JSON_PATCH)

    def _learn(self, target: Target, answer: Object) -> None:
        self._caches.children[target.kind.kind].learn(answer)

    # ------------------------------------------------------------------------------------------ objects that resist
    def _remember(self, target: Target, answer: Object) -> None:
        """A webhook, or a default that we fight: applying the same again on every pass would change nothing."""
        uid = answer["metadata"]["uid"]
        if _is_applied(target, answer):
            self._stubborn.pop(uid, None)
            return
        log.warning("%s %s differs from what was applied, as the server answered", target.kind.kind, target.key)
        self._telemetry.repeated.add(target.kind.plural)
        self._stubborn[uid] = _hash_of(target), _intent(answer)
        while len(self._stubborn) > STUBBORN_LIMIT:
            self._stubborn.popitem(last=False)

    def _is_stubborn(self, target: Target, live: Object) -> bool:
        return self._stubborn.get(live["metadata"]["uid"]) == (_hash_of(target), _intent(live))

    # ------------------------------------------------------------------------------------------ deletions
    async def _delete(self, md: Manifest, ref: Ref) -> Applied:
        kind, key = CHILDREN[ref.kind], (md["metadata"]["namespace"], ref.name)
        store = self._caches.children[ref.kind]
        live = store.get(key)
        if live is None or live["metadata"].get("deletionTimestamp"):
            return NOTHING
        metadata = live["metadata"]
        if controller(live).get("uid") != md["metadata"]["uid"] or ref.uid not in ("", metadata["uid"]):
            return NOTHING
        conditions = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        options = {"kind": "DeleteOptions", "apiVersion": "v1"}
        body = {**options, "preconditions": conditions, "propagationPolicy": "Background"}
        try:
            answer = await self._api.write("DELETE", kind.item(key), body)
        except errors.NotFoundError:
            answer = {"kind": "Status"}
        if answer.get("kind") == "Status":
            store.bury(key, metadata["uid"])
        else:
            # Somebody's finalizer holds it.
            store.learn(answer)
        return WROTE


def _wave(target: Target) -> int:
    return {CONTROLLER_REVISION: 0, DEPLOYMENT: DEPLOYMENTS}.get(target.kind, 1)


def _refusal(target: Target, error: errors.RefusedError) -> Applied:
    """A problem of the child; raises what another try may mend."""
    if NAMESPACE_TERMINATING in error.causes:
        return WAITING
    if not error.permanent:
        raise error
    return target.problem(_reason(error), error.message)


def _reason(error: errors.RefusedError) -> str:
    if not isinstance(error, errors.ForbiddenError):
        return INVALID
    return QUOTA_EXCEEDED if "exceeded quota" in error.message else FORBIDDEN


def _foreign(target: Target, owner: Object) -> Applied:
    if (owner.get("kind"), owner.get("name")) == (KIND, target.owner["metadata"]["name"]):
        # Of a ModelDeployment of the same name that was deleted a moment ago: the garbage collector comes for it.
        return WAITING
    holder = f"controlled by {owner['kind']} {owner['name']}" if owner else "not controlled by this ModelDeployment"
    what = f"{target.kind.kind} {target.key[1]} exists and is {holder}"
    return target.problem(NAME_CONFLICT, f"{what}: delete or rename it, or rename the ModelDeployment")


def _is_applied(target: Target, live: Object) -> bool:
    there = (live["metadata"].get("annotations") or {}).get(ANNOTATION_APPLIED)
    return bool(there == _hash_of(target)) and contains(live, target.manifest)


def _hash_of(target: Target) -> str:
    return str(target.manifest["metadata"]["annotations"][ANNOTATION_APPLIED])


def _intent(manifest: Object) -> Object:
    """What people and controllers decide of an object: not its status and not what the server counts."""
    metadata = manifest["metadata"]
    kept = {name: metadata.get(name) for name in ("labels", "annotations", "ownerReferences")}
    return {name: value for name, value in manifest.items() if name not in ("status", "metadata")} | {"metadata": kept}


async def _all(applying: Iterable[Awaitable[Applied]]) -> Applied:
    """All at once, and to the end even if one fails: then its error is raised, a conflict only when there is no
    other.
    """
    results = await asyncio.gather(*applying, return_exceptions=True)
    failed = [result for result in results if isinstance(result, BaseException)]
    if failed:
        raise min(failed, key=partial(_mildness))
    return _joined(result for result in results if isinstance(result, Applied))


def _mildness(error: BaseException) -> bool:
    return isinstance(error, errors.ConflictError)


def _joined(results: Iterable[Applied]) -> Applied:
    whole = NOTHING
    for result in results:
        whole |= result
    return whole
