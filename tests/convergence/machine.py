"""Random users, vandals, faults and crashes against the whole operator, over an API in memory or a real API server.

However it went: once they stop, the cluster is as the ModelDeployments say, nothing is left over, nothing that belongs
to others was touched, and not one further write happens. `test_memory.py` and `test_real_api.py` give it a `Ground`.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from modelpier_operator import names
from modelpier_operator.cluster.client import Api
from modelpier_operator.cluster.compare import contains
from modelpier_operator.cluster.kinds import CHILDREN, controller
from modelpier_server.contract import FailureReason
from support.builders import conditions, md
from support.faults import Fault, Faulty
from support.operator_rig import Rig
from support.world import Behaviour, World

Object = dict[str, Any]
T = TypeVar("T")
NAMES = ("m", "other")
NAMESPACE = "team"
URIS = tuple(f"s3://models/{name}/model.onnx" for name in ("one", "two", "three"))
BROKEN = "s3://models/broken/model.onnx"
ROLLOUT = {"progressDeadlineSeconds": 120, "capacityWaitSeconds": 10}
FAULTS = st.lists(st.sampled_from([f for f in Fault if not f.name.startswith("CRASH")]), min_size=1, max_size=6)
CRASHES = st.tuples(st.integers(0, 12), st.sampled_from([Fault.CRASH_BEFORE, Fault.CRASH_AFTER]))
FOREIGN = {"services": "m", "configmaps": "m-settings", "networkpolicies": "other-admin", "serviceaccounts": "m-server"}


class Users(Protocol):
    """What people, controllers and the garbage collector do at the API server."""

    def list(self, plural: str, namespace: str | None = None) -> list[Object]: ...
    def get(self, plural: str, namespace: str, name: str) -> Object | None: ...
    def create(self, plural: str, manifest: Object) -> Object: ...
    def replace(self, plural: str, manifest: Object) -> Object: ...
    def delete(self, plural: str, namespace: str, name: str) -> None: ...
    def collect_garbage(self) -> None: ...
    def compact(self) -> None:
        """Watches that are behind can only list again."""


class Ground(Protocol):
    @property
    def users(self) -> Users: ...
    def run(self, doing: Coroutine[Any, Any, T]) -> T: ...
    def connect(self) -> Api: ...
    async def second(self, rig: Rig, api: Faulty) -> None:
        """Lets the operator do what it does within a second."""

    def close(self) -> None: ...


class UserStore:
    """The World's objects at the API server."""

    plurals = {"Pod": "pods", "Deployment": "deployments", "ConfigMap": "configmaps"}  # noqa: RUF012 - never changed

    def __init__(self, users: Users) -> None:
        self._users = users

    def list(self, kind: str) -> list[Object]:
        managed = self._users.list(self.plurals[kind], NAMESPACE)
        return [o for o in managed if names.LABEL_POD_SET in (o["metadata"].get("labels") or {})]

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._users.get(self.plurals[kind], namespace, name)

    def put(self, manifest: Object) -> None:
        metadata, plural = manifest["metadata"], self.plurals[manifest["kind"]]
        if self._users.get(plural, metadata["namespace"], metadata["name"]) is None:
            self._users.create(plural, manifest)
        else:
            self._users.replace(plural, manifest)

    def remove(self, manifest: Object) -> None:
        metadata = manifest["metadata"]
        self._users.delete(self.plurals[manifest["kind"]], metadata["namespace"], metadata["name"])


class Convergence(RuleBasedStateMachine):
    settling = 400
    """Seconds that an undisturbed cluster gets: more than the rollouts' deadlines."""
    stride = 1
    """Seconds that pass in the world between two looks at the operator."""

    def ground(self) -> Ground:
        raise NotImplementedError

    @initialize(replicas=st.integers(0, 2))
    def start(self, replicas: int) -> None:
        self.here = self.ground()
        self.users = self.here.users
        self.world = World(UserStore(self.users), models={BROKEN: Behaviour(FailureReason.MODEL_INVALID)})
        self.foreign: dict[tuple[str, str], Object] = {}
        self.here.run(self._boot())
        self.users.create("modeldeployments", _new("m", URIS[0], replicas))

    # ------------------------------------------------------------------------------------------ the operator's life
    async def _boot(self) -> None:
        self.api = Faulty(self.here.connect())
        self.rig = Rig(self.api, self.world)
        await self.rig.start()

    async def _reboot(self) -> None:
        await self.rig.stop()
        await self._boot()

    async def _live(self, seconds: int) -> None:
        for _ in range(0, seconds, self.stride):
            await self.here.second(self.rig, self.api)
            if self.api.dead:
                await self._reboot()
            self.world.tick(self.stride)
            self.users.collect_garbage()
            self.rig.reports.poll(self.rig.queue.add)

    @rule(seconds=st.integers(1, 20))
    def time_passes(self, seconds: int) -> None:
        self.here.run(self._live(seconds))

    @rule(crash=CRASHES)
    def crash_at_a_write(self, crash: tuple[int, Fault]) -> None:
        count, how = crash
        self.api.coming.extend([Fault.NONE] * count + [how])

    @rule()
    def restart(self) -> None:
        self.here.run(self._reboot())

    @rule(faults=FAULTS)
    def faults_ahead(self, faults: list[Fault]) -> None:
        self.api.coming.extend(faults)

    @rule(compact=st.booleans())
    def watches_break(self, compact: bool) -> None:
        self.api.drop_watches()
        if compact:
            self.users.compact()

    # ------------------------------------------------------------------------------------------ users
    @rule(name=st.sampled_from(NAMES), uri=st.sampled_from([*URIS, BROKEN]), replicas=st.integers(0, 3))
    def write(self, name: str, uri: str, replicas: int) -> None:
        old = self.users.get("modeldeployments", NAMESPACE, name)
        if old is None:
            self.users.create("modeldeployments", _new(name, uri, replicas))
        else:
            old["spec"] |= {"model": {"uri": uri}, "replicas": replicas}
            self.users.replace("modeldeployments", old)

    @rule(name=st.sampled_from(NAMES), unseen=st.booleans())
    def delete(self, name: str, unseen: bool) -> None:
        if unseen:
            self.api.drop_watches()
        self.users.delete("modeldeployments", NAMESPACE, name)
        if unseen:
            self.users.compact()

    @rule(plural=st.sampled_from(sorted(FOREIGN)))
    def somebody_takes_a_name(self, plural: str) -> None:
        name = FOREIGN[plural]
        if self.users.get(plural, NAMESPACE, name) is None:
            made = self.users.create(plural, _foreign(plural, name))
            self.foreign[plural, name] = made

    @precondition(lambda self: self.foreign)
    @rule(data=st.data())
    def the_name_is_free_again(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.foreign)))
        self._untouched()
        del self.foreign[key]
        self.users.delete(key[0], NAMESPACE, key[1])

    @rule(data=st.data(), plural=st.sampled_from(sorted(k.plural for k in CHILDREN.values())), unseen=st.booleans())
    def somebody_deletes_a_child(self, data: st.DataObject, plural: str, unseen: bool) -> None:
        if found := self._children(plural):
            victim = data.draw(st.sampled_from(found))
            if unseen:
                self.api.drop_watches()
            self.users.delete(plural, NAMESPACE, victim["metadata"]["name"])
            if unseen:
                self.users.compact()

    @rule(data=st.data(), what=st.sampled_from(["label", "selector", "replicas"]))
    def somebody_edits_a_child(self, data: st.DataObject, what: str) -> None:
        plural = {"label": "configmaps", "selector": "services", "replicas": "deployments"}[what]
        if found := self._children(plural):
            victim = copy.deepcopy(data.draw(st.sampled_from(found)))
            if what == "label":
                victim["metadata"]["labels"][names.LABEL_MANAGED_BY] = "nobody"
            elif what == "selector":
                victim["spec"]["selector"] = {"app": "elsewhere"}
            else:
                victim["spec"]["replicas"] = 7
            self.users.replace(plural, victim)

    # ------------------------------------------------------------------------------------------ what must hold
    def teardown(self) -> None:
        if not hasattr(self, "here"):
            return
        try:
            self.here.run(self._end())
        finally:
            self.here.run(self.rig.stop())
            self.here.close()

    async def _end(self) -> None:
        self.api.coming.clear()
        self._untouched()
        for plural, name in self.foreign:
            self.users.delete(plural, NAMESPACE, name)
        await self._live(self.settling)
        told = {name: await self._check(name) for name in NAMES}
        before = list(self.api.writes)
        await self._live(70)
        assert self.api.writes == before, "a converged cluster is left alone"
        await self._reboot()
        await self._live(30)
        assert self.api.writes == [], "a restart writes nothing"
        assert told == {name: await self._check(name) for name in NAMES}

    async def _check(self, name: str) -> dict[str, str] | None:
        live = self.users.get("modeldeployments", NAMESPACE, name)
        mine = [
            child
            for kind in CHILDREN.values()
            for child in self.users.list(kind.plural, NAMESPACE)
            if (child["metadata"].get("labels") or {}).get(names.LABEL_DEPLOYMENT) == name
        ]
        if live is None:
            assert mine == [], "a deletion leaves nothing behind"
            return None
        uid = live["metadata"]["uid"]
        assert {controller(child).get("uid") for child in mine} <= {uid}
        self._as_judged(live, mine)
        told = conditions(live["status"])
        self._serves(live, told)
        return told

    def _as_judged(self, live: Object, mine: list[Object]) -> None:
        outcome = self.rig.judged(live)
        wanted_names = {(c["kind"], c["metadata"]["name"]) for c in outcome.children}
        # Who takes our label off an object takes it out of our sight, until its owner goes.
        ours = [c for c in mine if c["metadata"]["labels"].get(names.LABEL_MANAGED_BY) == names.MANAGED_BY]
        there = {(c["kind"], c["metadata"]["name"]) for c in ours}
        assert there == wanted_names, f"too many: {there - wanted_names}, missing: {wanted_names - there}"
        by_name = {(c["kind"], c["metadata"]["name"]): c for c in mine}
        for wanted in outcome.children:
            assert contains(by_name[wanted["kind"], wanted["metadata"]["name"]], wanted)
        assert outcome.delete == ()

    def _serves(self, live: Object, told: dict[str, str]) -> None:
        spec = live["spec"]
        assert live["status"]["observedGeneration"] == live["metadata"]["generation"]
        if not spec["replicas"]:
            assert told["Ready"] == "True/ScaledToZero"
        elif spec["model"]["uri"] != BROKEN and not told["Stalled"].startswith("True"):
            assert told["Ready"] == "True/Serving", told
        else:
            assert not told["Ready"].startswith("True"), told

    def _untouched(self) -> None:
        for (plural, name), made in self.foreign.items():
            live = self.users.get(plural, NAMESPACE, name)
            assert live is not None
            assert live["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]

    def _children(self, plural: str) -> list[Object]:
        found = self.users.list(plural, NAMESPACE)
        return [o for o in found if controller(o).get("kind") == names.KIND]


def _new(name: str, uri: str, replicas: int) -> Object:
    made = md(name, uri=uri, replicas=replicas, rollout=ROLLOUT)
    return {**made, "metadata": {"name": name, "namespace": NAMESPACE}}


def _foreign(plural: str, name: str) -> Object:
    specs: dict[str, Object] = {
        "services": {"spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]}},
        "networkpolicies": {"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}},
        "configmaps": {"data": {"theirs": "yes"}},
        "serviceaccounts": {},
    }
    return {"metadata": {"name": name, "namespace": NAMESPACE}, **specs[plural]}


async def idle(rig: Rig, api: Faulty) -> None:
    """Returns once the operator has nothing to do now, or is dead. Raises TimeoutError."""
    async with asyncio.timeout(30):
        quiet = 0
        while quiet < 3 and not api.dead:
            quiet = quiet + 1 if rig.queue.idle else 0
            await asyncio.sleep(0.01)
