"""Another key that signs plans (the Secret was lost, or replaced): what serves goes on, and is renewed if it must."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from modelpier_operator import names
from modelpier_server import contract
from modelpier_server.contract import FailureReason
from support.builders import KEYS, OTHER_KEYS, conditions, md, settings
from support.simulation import Operator
from support.world import Behaviour, DictStore, Object, World

TWO = {"uri": "s3://models/two/model.onnx"}
BROKEN = {"uri": "s3://models/broken/model.onnx"}


def operator(replicas: int = 2, **spec: object) -> Operator:
    world = World(DictStore(), models={BROKEN["uri"]: Behaviour(FailureReason.MODEL_INVALID)})
    made = Operator(md(replicas=replicas, **spec), world)  # type: ignore[arg-type]
    made.settle()
    return made


def is_ready(pod: Object) -> bool:
    return any((c["type"], c["status"]) == ("Ready", "True") for c in pod["status"]["conditions"])


def watch(subject: Operator, seconds: int, least: int) -> None:
    for _ in range(seconds):
        subject.run()
        subject.world.tick()
        assert sum(is_ready(p) for p in subject.world.pods()) >= least, subject.world.second


def trusted(subject: Operator) -> set[str]:
    """The keys that live pods trust."""
    env = (e for p in subject.world.pods() for e in p["spec"]["containers"][0]["env"])
    return {entry["value"] for entry in env if entry["name"] == contract.ENV_PLAN_PUBLIC_KEY}


def serves(subject: Operator) -> bool:
    return conditions(subject.md["status"])["Ready"] == "True/Serving"


def plan(subject: Operator) -> Object:
    found = (o for o in subject.world.store.list("ConfigMap") if contract.PLAN_KEY in o["data"])
    return max(found, key=lambda o: str(o["metadata"]["name"]))


def lose(subject: Operator) -> None:
    subject.world.store.remove(plan(subject))


def spoil(subject: Operator) -> None:
    spoilt = copy.deepcopy(plan(subject))
    spoilt["data"][contract.SIGNATURE_KEY] = "bm9uc2Vuc2U="
    subject.world.store.put(spoilt)


def test_what_serves_is_left_alone_and_starts_again_when_it_has_to() -> None:
    subject = operator()
    before = subject.world.seen()
    subject.keys = OTHER_KEYS
    watch(subject, 80, least=2)
    assert subject.world.seen() == before, "nothing was written"
    subject.world.crash(subject.world.pods()[0])
    watch(subject, 20, least=1)
    subject.edit(replicas=4)
    watch(subject, 30, least=2)
    assert serves(subject)
    assert sum(is_ready(p) for p in subject.world.pods()) == 4
    assert trusted(subject) == {KEYS.public}


@pytest.mark.parametrize("damage", [lose, spoil])
def test_a_plan_that_cannot_be_signed_again_is_the_reason_for_a_new_set(damage: Callable[[Operator], None]) -> None:
    subject = operator()
    subject.keys = OTHER_KEYS
    damage(subject)
    watch(subject, 60, least=2)
    assert serves(subject)
    assert trusted(subject) == {OTHER_KEYS.public}
    watch(subject, 30, least=2)
    assert not subject.run(), "and it comes to rest"


def test_a_first_load_that_was_not_pinned_begins_again() -> None:
    subject = Operator(md())
    for _ in range(3):
        subject.run()
        subject.world.tick()
    subject.keys = OTHER_KEYS
    subject.settle()
    assert serves(subject)
    assert trusted(subject) == {OTHER_KEYS.public}


def test_a_new_revision_trusts_the_new_key() -> None:
    subject = operator()
    subject.keys = OTHER_KEYS
    subject.edit(model=TWO)
    watch(subject, 60, least=2)
    assert serves(subject)
    assert trusted(subject) == {OTHER_KEYS.public}


def test_auto_renews_at_once_and_manual_keeps_what_it_made() -> None:
    subject = operator()
    subject.keys = OTHER_KEYS
    subject.edit(server={"runtimeUpgrade": "Auto"})
    watch(subject, 60, least=2)
    assert trusted(subject) == {OTHER_KEYS.public}
    before = subject.world.seen()
    subject.edit(server={"runtimeUpgrade": "Manual"})
    watch(subject, 60, least=2)
    assert subject.world.seen() == before
    assert serves(subject)


def test_manual_keeps_its_image() -> None:
    subject = operator()
    [image] = {p["spec"]["containers"][0]["image"] for p in subject.world.pods()}
    subject.settings, subject.keys = settings(server_image="registry.example/server:2"), OTHER_KEYS
    lose(subject)
    watch(subject, 60, least=2)
    assert trusted(subject) == {OTHER_KEYS.public}
    assert {p["spec"]["containers"][0]["image"] for p in subject.world.pods()} == {image}


def test_what_was_given_up_is_not_tried_again_for_it() -> None:
    subject = operator()
    subject.edit(model=BROKEN)
    subject.settle()
    revisions = {o["metadata"]["name"] for o in subject.world.store.list("ControllerRevision")}
    subject.keys = OTHER_KEYS
    watch(subject, 60, least=2)
    assert {o["metadata"]["name"] for o in subject.world.store.list("ControllerRevision")} == revisions
    assert conditions(subject.md["status"])["Stalled"].startswith("True")


def test_the_old_key_may_come_back() -> None:
    subject = operator()
    for keys in (OTHER_KEYS, KEYS, OTHER_KEYS):
        subject.keys = keys
        lose(subject)
        watch(subject, 60, least=2)
        assert serves(subject)
        assert trusted(subject) == {keys.public}


def test_nobody_s_template_can_change_whom_the_server_trusts() -> None:
    env = [{"name": contract.ENV_PLAN_PUBLIC_KEY, "value": "somebody's"}]
    template = {"spec": {"containers": [{"name": names.CONTAINER, "env": env}]}}
    subject = Operator(md(resources={"podTemplate": template}), settings=settings(allow_pod_overrides=True))
    subject.settle()
    assert trusted(subject) == {KEYS.public}
    assert serves(subject)
