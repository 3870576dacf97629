"""Users, vandals, faults and crashes against the whole operator, over an API in memory or a real API server.

However it went: once they stop, the cluster is as the ModelDeployments say, nothing is left over, nothing that belongs
to others was touched, and not one further write happens. A program is a list of acts: random ones are drawn from
`programs`, `scenarios.py` holds those that once were needed to find a defect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import strategies as st

from convergence import truths
from convergence.grounds import NAMESPACE, Ground, UserStore
from convergence.truths import BROKEN, REFUSED
from modelpier_operator import names
from modelpier_operator.cluster.kinds import CHILDREN, MODEL_DEPLOYMENT, controller
from modelpier_server.contract import FailureReason
from support.api import merge
from support.builders import KEYS, OTHER_KEYS, settings
from support.faults import Fault, Faulty, Journal
from support.operator_rig import Rig
from support.world import Behaviour, World

Object = dict[str, Any]
NAMES = ("m", "other")
URIS = tuple(f"s3://models/{name}/model.onnx" for name in ("one", "two", "three"))
ROLLOUT = {"progressDeadlineSeconds": 120, "capacityWaitSeconds": 10}
SETTLING = 400
"""Seconds that an undisturbed cluster gets: more than the rollouts' deadlines."""
CALM = 5
QUIET_STRIDE = 15
"""After so many seconds without any write the next look comes after so many."""
PLURALS = tuple(sorted(kind.plural for kind in CHILDREN.values()))
WATCHED = (*PLURALS, "pods", MODEL_DEPLOYMENT.plural)
FOREIGN = {"services": "m", "configmaps": "m-settings", "networkpolicies": "other-admin", "serviceaccounts": "m-server"}
HOLD = "example.org/hold"
EDITS: dict[str, tuple[str, Object]] = {
    "label": ("configmaps", {"metadata": {"labels": {names.LABEL_MANAGED_BY: "nobody"}}}),
    "selector": ("services", {"spec": {"selector": {"app": "elsewhere"}}}),
    "policy": ("networkpolicies", {"spec": {"podSelector": {"matchLabels": {"app": "elsewhere"}}}}),
    "replicas": ("deployments", {"spec": {"replicas": 7}}),
    "data": ("configmaps", {"data": {"plan.sig": "bm9uc2Vuc2U="}}),
}
ACCESS: dict[str, list[Object]] = {
    "everybody": [],
    "clients": [{"podSelector": {"matchLabels": {"app": "shop"}}}, {"namespaceSelector": {}}],
    "a range": [{"ipBlock": {"cidr": "198.18.0.0/16", "except": []}}],
}
NOT_CRASHES = [fault for fault in Fault if not fault.name.startswith("CRASH")]
AFTER = st.one_of(st.just(0), st.integers(1, 5), st.integers(1, 30))
NAME, PLURAL, UNSEEN = st.sampled_from(NAMES), st.sampled_from(PLURALS), st.booleans()
PICK = st.integers(0, 7)
"""Which of those that there are."""


@dataclass(frozen=True)
class Act:
    """One method of the machine, so many seconds after the one before."""

    what: str
    how: Mapping[str, Any]
    after: int = 0


def do(what: str, /, *, after: int = 0, **how: Any) -> Act:
    return Act(what, how, after)


Method = TypeVar("Method", bound=Callable[..., None])
ACTS: dict[str, Mapping[str, st.SearchStrategy[Any]]] = {}


def act(**how: st.SearchStrategy[Any]) -> Callable[[Method], Method]:
    """A method that random programs may call, with what is drawn."""

    def register(method: Method) -> Method:
        ACTS[method.__name__] = how
        return method

    return register


def programs(length: int) -> st.SearchStrategy[list[Act]]:
    """Lists rather than hypothesis' state machines: those pick few rules, and most of them before there is a child."""
    first, *others = (
        st.builds(Act, st.just(what), st.fixed_dictionaries(dict(how)), AFTER)
        for what, how in sorted(ACTS.items(), key=lambda item: item[0] != "write")
    )
    following = st.lists(st.one_of(first, *others), min_size=length // 2, max_size=length)
    return st.builds(lambda begin, rest: [begin, *rest], first, following)


class Machine:
    """Plays one program on a ground of its own."""

    def __init__(self, ground: Ground) -> None:
        self.here, self.users = ground, ground.users
        self.store = UserStore(self.users)
        self.world = World(self.store, models={BROKEN: Behaviour(FailureReason.MODEL_INVALID)})
        self.foreign: dict[tuple[str, str], Object] = {}
        self.held: set[tuple[str, str]] = set()
        self.journal = Journal()
        self.keys = KEYS

    def play(self, program: Iterable[Act]) -> dict[str, dict[str, str] | None]:
        """What each ModelDeployment's status tells in the end. Raises AssertionError for what does not hold then, or
        on the way.
        """
        self.here.run(self._boot())
        try:
            for step in program:
                self.here.run(self._live(step.after))
                getattr(self, step.what)(**step.how)
            return self.here.run(self._end())
        finally:
            self.here.run(self.rig.stop())
            self.here.close()

    def wait(self) -> None:
        """For the seconds before it."""

    # ------------------------------------------------------------------------------------------ the operator's life
    async def _boot(self) -> None:
        self.api = Faulty(self.here.connect(), journal=self.journal)
        self.rig = Rig(self.api, self.world, chosen=settings(allow_pod_overrides=True), keys=self.keys)
        await self.here.patiently(self.rig.start())

    async def _reboot(self) -> None:
        await self.rig.stop()
        await self._boot()

    async def _live(self, seconds: int) -> None:
        calm = 0
        while seconds > 0:
            stride, before = min(seconds, QUIET_STRIDE if calm > CALM else 1), self._written()
            await self.here.let_pass(stride, self.rig, self.api)
            if self.api.dead:
                await self._reboot()
            self.store.look()
            self.world.tick(stride)
            if self.journal.ended and not calm:
                self.users.collect_garbage()
            self.rig.reports.poll(self.rig.queue.add)
            calm = calm + 1 if self._written() == before else 0
            seconds -= stride

    def _written(self) -> tuple[int, int]:
        return self.journal.writes, self.store.writes

    @act(writes=st.integers(0, 12), how=st.sampled_from([Fault.CRASH_BEFORE, Fault.CRASH_AFTER]))
    def crash_at_a_write(self, writes: int, how: Fault) -> None:
        self.api.coming.extend([Fault.NONE] * writes + [how])

    @act()
    def restart(self) -> None:
        self.here.run(self._reboot())

    @act()
    def restart_with_another_key(self) -> None:
        """The Secret with the key that signs plans was deleted, and an operator started."""
        self.keys = OTHER_KEYS if self.keys == KEYS else KEYS
        self.restart()

    @act(faults=st.lists(st.sampled_from(NOT_CRASHES), min_size=1, max_size=6))
    def faults_ahead(self, faults: list[Fault]) -> None:
        self.api.coming.extend(faults)

    @act(count=st.integers(1, 4))
    def reads_fail(self, count: int) -> None:
        self.api.unreadable = count

    @act(too_old=st.booleans())
    def watches_break(self, too_old: bool) -> None:
        self.api.drop_watches(too_old=too_old)

    @act(plural=st.sampled_from(WATCHED), seconds=st.integers(1, 40))
    def a_watch_lags(self, plural: str, seconds: int) -> None:
        self.here.run(self._lag(plural, seconds))

    async def _lag(self, plural: str, seconds: int) -> None:
        self.api.lag(plural, asyncio.get_running_loop().time() + seconds)

    @act(pick=PICK, lost=st.booleans())
    def a_pod_fails(self, pick: int, lost: bool) -> None:
        if pod := _picked(self.world.pods(), pick):
            (self.world.delete_pod if lost else self.world.crash)(pod)

    # ------------------------------------------------------------------------------------------ users
    @act(name=NAME, uri=st.sampled_from([*URIS, BROKEN]), replicas=st.integers(0, 3))
    def write(self, name: str, uri: str, replicas: int) -> None:
        self._write(name, {"model": {"uri": uri}, "replicas": replicas, "resources": None})

    @act(name=NAME, refused=st.sampled_from(sorted(REFUSED)), replicas=st.integers(0, 3))
    def ask_for_what_is_refused(self, name: str, refused: str, replicas: int) -> None:
        resources = {"podTemplate": None, "nodeSelector": None, **REFUSED[refused]}
        self._write(name, {"resources": resources, "replicas": replicas})

    @act(name=NAME, access=st.sampled_from(sorted(ACCESS)))
    def let_in(self, name: str, access: str) -> None:
        if self.users.get("modeldeployments", NAMESPACE, name):
            self._write(name, {"access": {"from": ACCESS[access]}})

    @act(name=NAME, strategy=st.sampled_from(["Auto", "Surge", "Swap", "Replace"]))
    def roll_another_way(self, name: str, strategy: str) -> None:
        if self.users.get("modeldeployments", NAMESPACE, name):
            self._write(name, {"rollout": {"strategy": strategy}})

    def _write(self, name: str, spec: Object) -> None:
        if self.users.get("modeldeployments", NAMESPACE, name):
            self.users.patch("modeldeployments", NAMESPACE, name, {"spec": spec})
        else:
            made = merge({"model": {"uri": URIS[0]}, "replicas": 1, "rollout": ROLLOUT}, spec)
            self.users.create("modeldeployments", _of_users(name, made))

    @act(name=NAME, unseen=UNSEEN)
    def delete(self, name: str, unseen: bool) -> None:
        if live := self.users.get("modeldeployments", NAMESPACE, name):
            self._remove("modeldeployments", live, unseen)
            self.journal.ended.add(live["metadata"]["uid"])

    @act(name=NAME, unseen=UNSEEN, straggler=st.one_of(st.none(), PLURAL))
    def replace_by_force(self, name: str, unseen: bool, straggler: str | None) -> None:
        """`kubectl replace --force`: another one of the same name, before the garbage collector saw the end of the
        first. The `straggler` of its children goes last, and unseen: it has not our label any more.
        """
        if straggler:
            self.somebody_holds_a_child(straggler, 0)
            self.somebody_hides_a_child(straggler, 0)
        if live := self.users.get("modeldeployments", NAMESPACE, name):
            self.delete(name, unseen)
            self.users.create("modeldeployments", _of_users(name, live["spec"]))

    # ------------------------------------------------------------------------------------------ vandals
    @act(plural=st.sampled_from(sorted(FOREIGN)))
    def somebody_takes_a_name(self, plural: str) -> None:
        self._occupy(plural, FOREIGN[plural])

    @act(plural=PLURAL, pick=PICK)
    def somebody_supplants_a_child(self, plural: str, pick: int) -> None:
        if victim := _picked(self._children(plural), pick):
            self.users.delete(plural, NAMESPACE, victim["metadata"]["name"])
            self._occupy(plural, victim["metadata"]["name"])

    def _occupy(self, plural: str, name: str) -> None:
        if self.users.get(plural, NAMESPACE, name) is None:
            self.foreign[plural, name] = self.users.create(plural, _foreign(plural, name))

    @act(pick=PICK)
    def the_name_is_free_again(self, pick: int) -> None:
        self._untouched()
        if self.foreign:
            plural, name = sorted(self.foreign)[pick % len(self.foreign)]
            del self.foreign[plural, name]
            self.users.delete(plural, NAMESPACE, name)

    @act(plural=PLURAL, pick=PICK, unseen=UNSEEN)
    def somebody_deletes_a_child(self, plural: str, pick: int, unseen: bool) -> None:
        if victim := _picked(self._children(plural), pick):
            self._remove(plural, victim, unseen)

    @act(what=st.sampled_from(sorted(EDITS)), pick=PICK)
    def somebody_edits_a_child(self, what: str, pick: int) -> None:
        plural, changes = EDITS[what]
        if victim := _picked(self._children(plural), pick):
            self.users.patch(plural, NAMESPACE, victim["metadata"]["name"], changes)

    @act(plural=PLURAL, pick=PICK)
    def somebody_hides_a_child(self, plural: str, pick: int) -> None:
        """Without our label no watch of ours shows it."""
        if victim := _picked(self._children(plural), pick):
            hidden = {"metadata": {"labels": {names.LABEL_MANAGED_BY: None}}}
            self.users.patch(plural, NAMESPACE, victim["metadata"]["name"], hidden)

    @act(plural=PLURAL, pick=PICK)
    def somebody_holds_a_child(self, plural: str, pick: int) -> None:
        """A finalizer: a deletion takes until `somebody_lets_go`."""
        if victim := _picked(self._children(plural), pick):
            name = victim["metadata"]["name"]
            self.users.patch(plural, NAMESPACE, name, {"metadata": {"finalizers": [HOLD]}})
            self.held.add((plural, name))

    @act()
    def somebody_lets_go(self) -> None:
        for plural, name in self.held:
            if self.users.get(plural, NAMESPACE, name):
                self.users.patch(plural, NAMESPACE, name, {"metadata": {"finalizers": None}})
        self.held.clear()

    def _remove(self, plural: str, victim: Object, unseen: bool) -> None:
        if unseen:
            self.api.drop_watches(too_old=True)
        self.users.delete(plural, NAMESPACE, victim["metadata"]["name"])

    def _children(self, plural: str) -> list[Object]:
        found = self.users.list(plural, NAMESPACE)
        # What is on its way out takes no finalizer any more.
        living = (o for o in found if not o["metadata"].get("deletionTimestamp"))
        return [o for o in living if controller(o).get("kind") == names.KIND]

    # ------------------------------------------------------------------------------------------ what must hold
    async def _end(self) -> dict[str, dict[str, str] | None]:
        self.api.end_faults()
        self._untouched()
        for plural, name in self.foreign:
            self.users.delete(plural, NAMESPACE, name)
        self.somebody_lets_go()
        await self._live(SETTLING)
        told = await self._told()
        before = list(self.api.writes)
        await self._live(70)
        assert self.api.writes == before, "a converged cluster is left alone"
        await self._reboot()
        await self._live(30)
        assert self.api.writes == [], "a restart writes nothing"
        assert told == await self._told()
        truths.told_once(self.journal)
        return told

    async def _told(self) -> dict[str, dict[str, str] | None]:
        there = await truths.in_step(self.rig, self.users)
        return {name: truths.converged(self.rig, there, name) for name in NAMES}

    def _untouched(self) -> None:
        for (plural, name), made in self.foreign.items():
            live = self.users.get(plural, NAMESPACE, name)
            assert live is not None, f"{plural} {name} is somebody else's"
            assert live["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def _picked(there: list[Object], pick: int) -> Object | None:
    return there[pick % len(there)] if there else None


def _of_users(name: str, spec: Object) -> Object:
    return {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def _foreign(plural: str, name: str) -> Object:
    theirs = {"app": "theirs"}
    pod = {"metadata": {"labels": theirs}, "spec": {"containers": [{"name": "theirs", "image": "theirs"}]}}
    bodies: dict[str, Object] = {
        "configmaps": {"data": {"theirs": "yes"}},
        "controllerrevisions": {"revision": 1, "data": {"theirs": "yes"}},
        "deployments": {"spec": {"replicas": 0, "selector": {"matchLabels": theirs}, "template": pod}},
        "networkpolicies": {"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}},
        "poddisruptionbudgets": {"spec": {"selector": {"matchLabels": theirs}}},
        "serviceaccounts": {},
        "services": {"spec": {"selector": theirs, "ports": [{"port": 80}]}},
    }
    return {"metadata": {"name": name, "namespace": NAMESPACE}, **bodies[plural]}
