"""Plans: identity, generation, signature, and who has to be told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modelpier_operator import names
from modelpier_operator.decide import intent, plan, podset
from modelpier_operator.decide.goals import Goal
from modelpier_operator.decide.podset import PodSet
from modelpier_operator.decide.revision import Revision
from modelpier_operator.desired.plan import plan_config_map
from modelpier_server import contract
from support.builders import DIGEST, KEYS, T0, at, md, pod, report

ID = ("uid-m", "m")


def revision(**sections: Any) -> Revision:
    taken = intent.of(md(**sections)["spec"])
    server = {"name": names.CONTAINER, "env": [{"name": contract.ENV_PLAN_PUBLIC_KEY, "value": KEYS.public}]}
    return Revision("m-rev", 1, taken.hash, taken.snapshot, taken.spec, {"spec": {"containers": [server]}})


def live(signed: plan.SignedPlan, *pods: podset.Pod) -> PodSet:
    return PodSet("s", plan=plan_config_map(md(), Goal("s", "", revision(), 1, PodSet("s")), signed), pods=pods)


def running(name: str = "p", *, ready: bool = False, **told: Any) -> podset.Pod:
    return podset.pod(pod("s", name=name, ready=ready), report("m-rev", **told) if told else None)


def test_a_plan_says_what_the_spec_says_and_is_signed() -> None:
    sections = {
        "model": {
            "version": "7",
            "credentialsSecret": "s3",
            "digest": DIGEST,
            "tests": {"enabled": False, "relativeTolerance": 0.25, "absoluteTolerance": 0},
        },
        "server": {
            "instances": 2,
            "threads": 3,
            "graphOptimization": "Basic",
            "hooks": True,
            "customOperators": ["ops/a.so", "b.so"],
            "batching": {
                "enabled": False,
                "maxRows": 8,
                "maxDelayMicroseconds": 500,
                "padding": {"ids": 1, "mask": 0},
                "mask": "mask",
            },
            "limits": {
                "maxQueue": 5,
                "requestTimeoutSeconds": 9,
                "maxBodyBytes": 2048,
                "maxQueueWaitMilliseconds": 250,
                "priorityLevels": 3,
                "runTimeoutSeconds": 4,
            },
        },
    }
    signed = plan.signed(revision(**sections), PodSet("s"), ID, KEYS, T0)
    contract.verify(signed.raw, signed.signature, KEYS.public)
    decoded = contract.Plan.decode(signed.raw)
    (model,) = decoded.models
    assert (decoded.owner_uid, decoded.generation) == ("uid-m", int(T0.timestamp() * 1000))
    assert (model.name, model.revision, model.version, model.digest) == ("m", "m-rev", "7", DIGEST)
    assert (model.credentials, model.weight, model.role) == ("s3", 100, contract.Role.REQUIRED)
    assert model.options.limits == contract.Limits(5, 9.0, 2048, 0.25, 3, 4.0)
    assert (model.options.instances, model.options.threads) == (2, 3)
    assert model.options.graph_optimization is contract.GraphOptimization.BASIC
    assert model.options.hooks
    assert model.options.custom_operators == ("ops/a.so", "b.so")
    assert model.options.golden_tests == contract.GoldenTests(False, 0.25, 0.0)
    assert model.options.batching == contract.Batching(False, 8, 0.0005, {"ids": 1.0, "mask": 0.0}, "mask")


def test_providers_by_default() -> None:
    assert [p.name for p in plan.providers(revision())] == ["CPUExecutionProvider"]
    assert [p.name for p in plan.providers(revision(gpu=1))] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    own = {"executionProviders": [{"name": "OpenVINOExecutionProvider", "options": {"device_type": "CPU"}}]}
    assert plan.providers(revision(server=own)) == (
        contract.Provider("OpenVINOExecutionProvider", {"device_type": "CPU"}),
    )


def test_an_unchanged_plan_keeps_its_bytes_for_ever() -> None:
    first = plan.signed(revision(), PodSet("s"), ID, KEYS, T0)
    assert plan.signed(revision(), live(first), ID, KEYS, at(9999)) == first


def test_a_signature_that_somebody_spoilt_is_made_again() -> None:
    first = plan.signed(revision(), PodSet("s"), ID, KEYS, T0)
    spoilt = plan.SignedPlan(first.generation, first.raw, "AAAA")
    assert plan.signed(revision(), live(spoilt), ID, KEYS, at(1)) == first


def test_generations_only_grow() -> None:
    first = plan.signed(revision(), PodSet("s"), ID, KEYS, at(100))
    changed = revision().remembering(digest=DIGEST)
    assert plan.signed(changed, live(first), ID, KEYS, at(200)).generation == int(at(200).timestamp() * 1000)
    behind = plan.signed(changed, live(first), ID, KEYS, at(50))
    assert behind.generation == first.generation + 1, "a clock that is behind"
    holds = running(generation=first.generation + 7)
    lost = plan.signed(revision(), PodSet("s", pods=(holds,)), ID, KEYS, at(50))
    assert lost.generation == first.generation + 8, "the ConfigMap was deleted: the pods still hold a newer plan"


def test_a_config_map_that_cannot_be_read_is_written_anew() -> None:
    for text in ("", "{", "[]", '{"generation": "x"}', '{"generation": true}'):
        spoilt = PodSet("s", plan={"data": {contract.PLAN_KEY: text}})
        signed = plan.signed(revision(), spoilt, ID, KEYS, T0)
        assert contract.Plan.decode(signed.raw).generation == int(T0.timestamp() * 1000)


@pytest.mark.parametrize("generation", [2**53, 2**64 - 1, 10**40])
def test_a_generation_that_no_operator_wrote_counts_as_no_plan(generation: int) -> None:
    spoilt = PodSet("s", plan={"data": {contract.PLAN_KEY: f'{{"generation": {generation}}}'}})
    assert plan.signed(revision(), spoilt, ID, KEYS, T0).generation == int(T0.timestamp() * 1000)
    boasting = PodSet("s", pods=(running(generation=generation),))
    assert plan.signed(revision(), boasting, ID, KEYS, T0).generation == int(T0.timestamp() * 1000)


def test_a_server_that_holds_a_newer_plan_is_given_one_that_is_newer_still() -> None:
    first = plan.signed(revision(), PodSet("s"), ID, KEYS, T0)
    ahead = running("ahead", ready=True, generation=first.generation + 5)
    subject = live(first, ahead)
    newer = plan.signed(revision(), subject, ID, KEYS, T0)
    assert newer.generation == first.generation + 6
    assert [push.pod_uid for push in plan.pushes(subject, newer)] == ["uid-ahead"]
    assert contract.Plan.decode(newer.raw).models == contract.Plan.decode(first.raw).models


def test_the_digest_of_a_plan_counts_only_as_the_operator_signed_it_for_this_set() -> None:
    pinned = revision().remembering(digest=DIGEST)
    signed = plan.signed(pinned, PodSet("s"), ID, KEYS, T0)
    subject = live(signed)
    assert plan.live_digest(revision(), subject, ID) == DIGEST
    foreign = plan.signed(pinned, PodSet("t"), ID, KEYS, T0)
    unsigned = plan.SignedPlan(signed.generation, signed.raw.replace(b"aaaa", b"bbbb"), signed.signature)
    other = replace(revision(), name="m-other")
    assert plan.live_digest(revision(), live(foreign), ID) is None
    assert plan.live_digest(revision(), live(unsigned), ID) is None
    assert plan.live_digest(other, subject, ID) is None
    assert plan.live_digest(revision(), subject, ("another", "m")) is None
    assert plan.live_digest(revision(), PodSet("s"), ID) is None
    assert plan.live_digest(revision(), None, ID) is None


def test_the_first_digest_is_that_of_the_oldest_pod_that_loaded() -> None:
    young = podset.pod(pod("s", name="y", created=9), report("m-rev", state="loaded", digest="sha256:" + "b" * 64))
    old = podset.pod(pod("s", name="o", created=1), report("m-rev", state="loaded"))
    loading = podset.pod(pod("s", name="l"), report("m-rev", state="loading"))
    stranger = podset.pod(pod("s", name="s"), report("other", state="ready"))
    assert plan.first_digest(revision(), PodSet("s", pods=(stranger, loading, old, young))) == DIGEST
    assert plan.first_digest(revision(), PodSet("s", pods=(stranger, loading))) is None
    assert plan.first_digest(revision(), None) is None


def test_who_is_told_and_who_is_listened_to() -> None:
    signed = plan.signed(revision(), PodSet("s"), ID, KEYS, T0)
    new = signed.generation
    pods = (
        running("silent"),
        running("behind", generation=1),
        running("loading", state="loading", generation=new),
        running("settled", ready=True, generation=new),
        podset.pod(pod("s", name="unscheduled", node="")),
        podset.pod(pod("s", name="leaving", deleted=9)),
    )
    subject = PodSet("s", pods=pods)
    assert [push.pod_uid for push in plan.pushes(subject, signed)] == ["uid-silent", "uid-behind"]
    assert [uid for uid, _ in plan.unsettled(subject, signed, None)] == ["uid-silent", "uid-behind", "uid-loading"]


def test_versions() -> None:
    assert revision(model={"version": "v7"}).version == "v7"
    assert revision(model={"digest": DIGEST}).version == "aaaaaaaa"
    plain = revision()
    assert plain.version == plain.hash[:8]
    assert plain.remembering(digest=DIGEST).version == plain.version, "a URL does not change when the digest is pinned"


@pytest.mark.parametrize(("size", "looked_at"), [(1_000, True), (100_000, True), (600_000, False)])
def test_a_plan_that_somebody_has_made_large_is_not_remembered(size: int, looked_at: bool) -> None:
    raw = contract.Plan("uid", 1, (), "x" * size).encode()
    signature = contract.sign(raw, KEYS.private)
    before = plan._verified_once.cache_info().currsize
    assert (plan._verified(raw, signature, KEYS.public) is not None) is looked_at
    assert plan._verified_once.cache_info().currsize - before == (size == 1_000)
