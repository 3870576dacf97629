"""A pass as a whole: pure, whole, and at rest when there is nothing to do."""

from __future__ import annotations

import copy

import pytest

from modelpier_operator.decide.facts import Observed
from modelpier_operator.judge import judge
from support.builders import KEYS, T0, at, md, settings
from support.simulation import Operator
from support.world import DictStore, World


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
        reports=dict(reversed(observed.reports.items())),
        capacity=observed.capacity,
    )
    now = subject.world.now
    assert judge(turned, settings(), KEYS, now) == judge(observed, settings(), KEYS, now)


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


def test_a_timer_is_asked_for_whenever_time_alone_decides() -> None:
    subject = Operator(md(rollout={"progressDeadlineSeconds": 300}))
    subject.run()
    assert subject.outcomes[-1].requeue_after == 300
    subject.settle()
    assert subject.outcomes[-1].requeue_after is None
