"""The operator around `judge` for tests without an API: observes a world, judges, carries the outcome out.

It can be stopped after any number of writes, as a crash would; it remembers nothing, so that the next pass is a
restarted operator's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from modelpier_operator import names
from modelpier_operator.decide.facts import Capacity, GpuPod, NodeFact, Observed, Outcome, Problem, Ref, Tiding
from modelpier_operator.judge import judge
from modelpier_operator.settings import PlanKeys, Settings
from support.builders import GPU, KEYS, settings
from support.world import DRAIN, DictStore, Object, World, gpus_of

CHILDREN = (
    "ControllerRevision",
    "ConfigMap",
    "Deployment",
    "Service",
    "PodDisruptionBudget",
    "ServiceAccount",
    "NetworkPolicy",
)


@dataclass
class Operator:
    md: Object
    world: World = field(default_factory=lambda: World(DictStore()))
    settings: Settings = field(default_factory=settings)
    keys: PlanKeys = KEYS
    sees_nodes: bool = True
    refuses: Callable[[Object], bool] = lambda _: False
    """Deployments that the API server does not take."""
    problems: tuple[Problem, ...] = ()
    outcomes: list[Outcome] = field(default_factory=list)
    told: dict[str, Tiding] = field(default_factory=dict)
    """Events by name."""

    def edit(self, **spec: Any) -> None:
        """As a user would: a changed spec is a new generation."""
        changed = copy.deepcopy(self.md)
        changed["spec"] |= spec
        if changed["spec"] != self.md["spec"]:
            changed["metadata"]["generation"] += 1
            self.md = changed

    def observe(self) -> Observed:
        world = self.world
        return Observed(
            md=self.md,
            children=tuple(o for kind in CHILDREN for o in world.store.list(kind)),
            pods=tuple(world.pods()),
            reports=world.reports(),
            capacity=self._capacity() if self.sees_nodes else None,
            problems=self.problems,
        )

    def judge(self) -> Outcome:
        return judge(self.observe(), self.settings, self.keys, self.world.now)

    def run(self, writes: int | None = None) -> bool:
        """One pass, cut off after `writes`; whether anything was written."""
        outcome = self.judge()
        self.outcomes.append(outcome)
        changes = self._changed(outcome)
        refused = [c for c in changes if c["kind"] == "Deployment" and self.refuses(c)]
        self.problems = tuple(Problem(Ref(c["kind"], c["metadata"]["name"]), "Invalid", "spec: no") for c in refused)
        todo = [*(c for c in changes if c not in refused), *outcome.delete]
        for item in todo[:writes]:
            self._carry_out(item)
        if writes is not None and writes <= len(todo):
            return True
        for push in outcome.pushes:
            self.world.push(push.pod_uid, push.plan, push.signature)
        for tiding in outcome.tidings:
            self.told.setdefault(tiding.name, tiding)
        changed = bool(todo) or outcome.status != self.md.get("status")
        self.md = {**self.md, "status": outcome.status}
        return changed

    def settle(self, seconds: int = 400) -> Outcome:
        """World and operator take turns until neither has anything to do, or the time is over."""
        quiet, end = 0, self.world.second + seconds
        while self.world.second < end:
            before = self.world.seen()
            changed = self.run()
            self.world.tick()
            quiet = 0 if changed or before != self.world.seen() else quiet + 1
            if quiet > DRAIN + 2:
                if not (wait := self.outcomes[-1].requeue_after):
                    break
                self.world.second += int(wait)  # nothing happens before a timer of the operator ends
                quiet = 0
        return self.outcomes[-1]

    def _changed(self, outcome: Outcome) -> list[Object]:
        store = self.world.store
        return [
            child
            for child in (copy.deepcopy(dict(c)) for c in outcome.children)
            if not same(store.get(child["kind"], child["metadata"]["namespace"], child["metadata"]["name"]), child)
        ]

    def _carry_out(self, item: Any) -> None:
        store = self.world.store
        if isinstance(item, dict):
            metadata = item["metadata"]
            old = store.get(item["kind"], metadata["namespace"], metadata["name"])
            metadata["uid"] = old["metadata"]["uid"] if old else f"{item['kind']}-{metadata['name']}"
            store.put(item)
        elif gone := store.get(item.kind, self.md["metadata"]["namespace"], item.name):
            store.remove(gone)

    def _capacity(self) -> Capacity:
        nodes = tuple(NodeFact(n, {}, (), False, True, {GPU: g}) for n, g in self.world.nodes.items())
        holding = [p for p in self.world.pods() if gpus_of(p)]
        pods = tuple(
            GpuPod(p["metadata"]["namespace"], p["metadata"]["name"], p["spec"].get("nodeName", ""), {GPU: gpus_of(p)})
            for p in holding
        )
        return Capacity(nodes, pods)


def same(live: Object | None, wanted: Object) -> bool:
    if live is None:
        return False
    plain = {**live, "metadata": {k: v for k, v in live["metadata"].items() if k != "uid"}}
    return plain == wanted


def pod_set(outcome: Outcome) -> str | None:
    """The set behind the Service."""
    service = next(c for c in outcome.children if c["kind"] == "Service")
    selected: str | None = service["spec"]["selector"].get(names.LABEL_POD_SET)
    return selected
