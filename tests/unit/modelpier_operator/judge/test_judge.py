"""A pass as a whole: pure, whole, and at rest when there is nothing to do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given

from modelpier_operator import names
from modelpier_operator.decide.facts import Observed
from modelpier_operator.judge import judge
from support.builders import DIGEST, KEYS, T0, at, md, settings
from support.simulation import Operator
from support.specs import spec_values
from support.world import Behaviour, DictStore, World


def rolling() -> Operator:
    """In the middle of a Replace."""
    subject = Operator(md(replicas=2, gpu=1), World(DictStore(), nodes={"n1": 2}))
    subject.settle()
    subject.edit(model={"uri": "s3://models/two/model.onnx"})
    for _ in range(10):
        subject.run()
        subject.world.tick()
    return subject


def test_the_input_stays_as_it_is_and_the_outcome_depends_on_nothing_else() -> None:
    subject = rolling()
    observed = subject.observe()
    before = copy.deepcopy(observed)
    first = judge(observed, subject.settings, KEYS, subject.world.now)
    assert judge(before, subject.settings, KEYS, subject.world.now) == first
    assert observed == before


def test_the_order_of_observation_does_not_matter() -> None:
    subject = rolling()
    observed = subject.observe()
    turned = Observed(
        md=observed.md,
        children=observed.children[::-1],
        pods=observed.pods[::-1],
        reports=dict(reversed(list(observed.reports.items()))),
        capacity=observed.capacity,
    )
    now = subject.world.now
    assert judge(turned, settings(), KEYS, now) == judge(observed, settings(), KEYS, now)


@given(spec=spec_values)
def test_a_first_outcome_is_final_when_a_second_look_would_say_the_same(spec: dict[str, Any]) -> None:
    subject = Operator({**md(), "spec": {"replicas": 1, **spec}}, settings=settings(allow_pod_overrides=True))
    subject.run()
    first, again = subject.outcomes[-1], subject.judge()
    assert first.final
    assert not again.final
    assert (again.children, again.delete, again.status) == (first.children, first.delete, first.status)
    assert (again.pushes, again.follow, again.requeue_after) == (first.pushes, first.follow, first.requeue_after)


def test_an_object_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    made = judge(Observed(md()), settings(), KEYS, T0)
    going = md(status=made.status)
    going["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:05Z"
    outcome = judge(Observed(going, children=made.children), settings(), KEYS, at(6))
    assert (outcome.children, outcome.delete, outcome.status) == ((), (), made.status)


@pytest.mark.parametrize("writes", range(1, 7))
def test_a_crash_after_any_write_of_the_first_pass_ends_in_the_same_objects(writes: int) -> None:
    whole, cut = Operator(md()), Operator(md())
    whole.settle()
    cut.run(writes)
    cut.world.tick(3)
    cut.settle()
    names = [sorted(o["metadata"]["name"] for o in subject.world.store.list("Deployment")) for subject in (whole, cut)]
    assert names[0] == names[1]
    assert cut.world.made == 1
    assert cut.md["status"]["readyReplicas"] == 1


@pytest.mark.parametrize("kind", ["Deployment", "ConfigMap"])
def test_an_object_that_somebody_deleted_comes_back_as_it_was(kind: str) -> None:
    subject = Operator(md(replicas=2))
    subject.settle()
    (gone,) = subject.world.store.list(kind)
    subject.world.store.remove(gone)
    subject.run()
    (back,) = subject.world.store.list(kind)
    if kind == "Deployment":
        assert back == gone
    assert back["metadata"] == gone["metadata"]


def test_a_deployment_made_in_a_later_pass_than_its_plan_is_the_same() -> None:
    whole, cut = Operator(md()), Operator(md())
    whole.run()
    writes = [c["kind"] for c in whole.outcomes[0].children].index("ConfigMap") + 1
    cut.run(writes)
    cut.run()
    assert cut.world.store.list("Deployment") == whole.world.store.list("Deployment")


@pytest.mark.parametrize("memory", [{}, {names.ANNOTATION_DIGEST: "sha256:" + "b" * 64}])
def test_the_digest_in_a_signed_plan_is_never_pinned_anew(memory: dict[str, str]) -> None:
    """The ControllerRevision does not tell it, or another one, and the pod that loaded it first is gone."""
    subject = Operator(md(replicas=1))
    subject.settle()
    (before,) = subject.world.store.list("ConfigMap")
    for revision in subject.world.store.list("ControllerRevision"):
        del revision["metadata"]["annotations"][names.ANNOTATION_DIGEST]
        revision["metadata"]["annotations"] |= memory
    subject.world.models[subject.md["spec"]["model"]["uri"]] = Behaviour(digest="sha256:" + "b" * 64)
    for pod in subject.world.pods():
        subject.world.crash(pod)
    subject.settle(60)
    (revision,) = subject.world.store.list("ControllerRevision")
    assert revision["metadata"]["annotations"][names.ANNOTATION_DIGEST] == DIGEST
    assert subject.world.store.list("ConfigMap") == [before]


def test_a_timer_is_asked_for_whenever_time_alone_decides() -> None:
    subject = Operator(md(rollout={"progressDeadlineSeconds": 300}))
    subject.run()
    assert subject.outcomes[-1].requeue_after == 300
    subject.settle()
    assert subject.outcomes[-1].requeue_after is None
