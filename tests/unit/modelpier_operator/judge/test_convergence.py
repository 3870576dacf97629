"""Whatever users, nodes and crashes do: in the end the newest good spec serves, or the last good one with a reason."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelpier_server.contract import FailureReason, ModelState
from support.builders import conditions, md, of_kind
from support.simulation import Operator, pod_set
from support.world import Behaviour, DictStore, World, report

URIS = {name: f"s3://models/{name}/model.onnx" for name in ("one", "two", "three", "large")}
BAD = {
    "broken": Behaviour(FailureReason.MODEL_INVALID),
    "gone": Behaviour(FailureReason.MODEL_NOT_FOUND),
}
LARGE = {URIS["large"]: Behaviour(beside=FailureReason.OUT_OF_MEMORY)}
"""It serves, but not beside another one."""
EVERY_URI = list(URIS.values()) + [f"s3://models/{name}/model.onnx" for name in BAD]
ROLLOUT = {"progressDeadlineSeconds": 120, "capacityWaitSeconds": 10}


class Converges(RuleBasedStateMachine):
    """The operator is `judge` and nothing else: every pass is a restarted operator's."""

    @initialize(gpu=st.sampled_from([0, 1]), spare=st.integers(0, 3), replicas=st.integers(0, 3), sees=st.booleans())
    def start(self, gpu: int, spare: int, replicas: int, sees: bool) -> None:
        world = World(DictStore(), nodes={"n1": 2, "n2": 1 + spare}, uneven=True)
        world.models |= LARGE | {f"s3://models/{name}/model.onnx": behaviour for name, behaviour in BAD.items()}
        first = md(uri=URIS["one"], replicas=replicas, gpu=gpu, rollout=ROLLOUT)
        self.operator = Operator(first, world, sees_nodes=sees)

    @rule(uri=st.sampled_from(EVERY_URI))
    def another_model(self, uri: str) -> None:
        self.operator.edit(model={"uri": uri})

    @rule(strategy=st.sampled_from(["Auto", "Surge", "Swap", "Replace"]))
    def another_strategy(self, strategy: str) -> None:
        self.operator.edit(rollout={**ROLLOUT, "strategy": strategy})

    @rule(memory=st.sampled_from(["1Gi", "2Gi"]))
    def other_resources(self, memory: str) -> None:
        self.operator.edit(resources={**self.operator.md["spec"].get("resources", {}), "memory": memory})

    @rule(replicas=st.integers(0, 3))
    def scale(self, replicas: int) -> None:
        self.operator.edit(replicas=replicas)

    @rule(writes=st.integers(0, 6))
    def crash_of_the_operator(self, writes: int) -> None:
        self.operator.run(writes)

    @rule(passes=st.integers(1, 12))
    def work(self, passes: int) -> None:
        for _ in range(passes):
            self.operator.run()
            self.the_service_finds_what_serves()
            self.operator.world.tick()

    @rule(seconds=st.integers(1, 40))
    def operator_is_away(self, seconds: int) -> None:
        self.operator.world.tick(seconds)

    @precondition(lambda self: self.operator.world.pods())
    @rule(data=st.data(), how=st.sampled_from(["delete", "crash"]))
    def lose_a_pod(self, data: st.DataObject, how: str) -> None:
        pod = data.draw(st.sampled_from(self.operator.world.pods()))
        (self.operator.world.delete_pod if how == "delete" else self.operator.world.crash)(pod)

    @precondition(lambda self: self.operator.world.store.list("Deployment"))
    @rule(data=st.data(), kind=st.sampled_from(["Deployment", "ConfigMap", "Service"]))
    def somebody_deletes_an_object(self, data: st.DataObject, kind: str) -> None:
        if found := self.operator.world.store.list(kind):
            self.operator.world.store.remove(data.draw(st.sampled_from(found)))

    @invariant()
    def the_service_finds_what_serves(self) -> None:
        outcome = self.operator.judge()
        selected = pod_set(outcome)
        ready = {p.pod_set for s in _facts(self.operator).pod_sets for p in s.pods if p.ready}
        wanted = {d["metadata"]["name"] for d in of_kind(outcome.children, "Deployment")}
        assert selected is None or selected in ready or not ready & wanted

    @invariant()
    def a_pass_is_a_function(self) -> None:
        assert self.operator.judge() == self.operator.judge()

    def teardown(self) -> None:
        if not hasattr(self, "operator"):
            return
        outcome = self.operator.settle(900)
        told, wanted = conditions(outcome.status), self.operator.md["spec"]["model"]["uri"]
        assert self.operator.judge().status == outcome.status
        assert not self.operator.run(), "a converged world asks for nothing more"
        self._check(outcome, told, wanted)

    def _check(self, outcome: Any, told: dict[str, str], wanted: str) -> None:
        replicas = self.operator.md["spec"]["replicas"]
        serving = served(self.operator)
        if not replicas:
            assert told["Ready"] == "True/ScaledToZero"
            assert not self.operator.world.pods()
        elif wanted in URIS.values() and not told["Stalled"].startswith("True"):
            assert told["Ready"] == "True/Serving", told
            assert serving == [wanted] * replicas
        elif told["Available"].startswith("True"):
            assert told["Degraded"].startswith("True")
            assert told["Stalled"].startswith("True")
            assert len(serving) == replicas, "the last good revision serves at full strength"
            assert set(serving) < set(URIS.values())
        else:
            assert told["Degraded"].startswith("True")
            assert serving == []


def served(operator: Operator) -> list[str]:
    """URIs of the models behind the Service, one for each ready pod."""
    held = [(report(server), server.plan) for server in operator.world.servers.values() if server.plan]
    return sorted(
        planned.uri
        for told, plan in held
        for planned, model in zip(plan.models, told.models, strict=True)
        if planned.weight and model.state is ModelState.READY
    )


def _facts(operator: Operator) -> Any:
    from modelpier_operator.decide.gather import gather  # noqa: PLC0415

    return gather(operator.observe())


TestConverges = Converges.TestCase
TestConverges.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
