"""Which revision is which."""

from __future__ import annotations

from typing import Any

import pytest

from modelpier_operator.decide import intent, revision
from modelpier_operator.decide.memory import Memory
from modelpier_operator.decide.revision import Revision
from modelpier_operator.desired.pod import template
from modelpier_operator.desired.revision import controller_revision
from support.builders import KEYS, md, settings


def made(number: int, **memory: Any) -> Revision:
    subject = md(uri=f"s3://models/{number}/m.onnx")
    taken = intent.of(subject["spec"])
    frozen = template(subject, taken.spec, settings(), KEYS)
    return Revision(f"m-{number}", number, taken.hash, taken.snapshot, taken.spec, frozen, Memory(**memory))


def test_there_and_back() -> None:
    subject = made(3, started="2030-01-01T00:00:00.000000Z", digest="sha256:" + "a" * 64)
    assert revision.read(controller_revision(md(), subject)) == subject
    assert subject.image == "registry.example/server:1"


@pytest.mark.parametrize(
    "data",
    [{}, {"spec": {}}, {"spec": {"model": {}}, "template": {}}, {"spec": {"model": {"uri": "s3://abc/k"}}}],
)  # fmt: skip
def test_data_that_somebody_made_unusable(data: dict[str, Any]) -> None:
    assert revision.read({"metadata": {"name": "x"}, "data": data, "revision": 1}) is None


def test_stable_is_what_was_promoted_last() -> None:
    one = made(1, promoted="2030-01-01T00:00:02.000000Z")
    two = made(2, promoted="2030-01-01T00:00:01.000000Z")
    assert revision.stable((one, two, made(3))) is one
    assert revision.stable((made(3),)) is None


def test_an_older_revision_that_is_wanted_again_starts_anew() -> None:
    old = made(1, started="2030-01-01T00:00:00.000000Z", promoted="2030-01-01T00:00:01.000000Z", digest="sha256:x")
    again = revision.wanted_again(old, 4)
    assert again.number == 5
    assert again.memory == Memory(promoted=old.memory.promoted, digest="sha256:x")
    assert revision.wanted_again(old, 1) is old


def test_the_oldest_are_forgotten_but_never_what_is_needed() -> None:
    everything = tuple(made(n) for n in range(1, 6))
    gone = revision.forgotten(everything, {"m-1", "m-5"}, 2)
    assert [r.name for r in gone] == ["m-2"]
    assert revision.forgotten(everything, {"m-1"}, 10) == ()


def test_the_hash_covers_intent_alone() -> None:
    same: list[dict[str, Any]] = [
        {},
        {"replicas": 7},
        {"rollout": {"strategy": "Replace"}},
        {"server": {"runtimeUpgrade": "Auto"}},
        {"resources": {"cpu": "1000m", "memory": "2048Mi"}},
    ]
    assert len({intent.of(md(**sections)["spec"]).hash for sections in same}) == 1
    other: list[dict[str, Any]] = [{"server": {"threads": 2}}, {"resources": {"cpu": "2"}}, {"model": {"version": "2"}}]
    assert len({intent.of(md(**sections)["spec"]).hash for sections in (*other, {})}) == 4
