"""The memory of a rollout survives its annotations, and annotations that somebody spoilt do no harm."""

from __future__ import annotations

import pytest

from modelpier_operator import names
from modelpier_operator.api.conditions import Reason
from modelpier_operator.api.v1alpha1 import Strategy
from modelpier_operator.decide.memory import Failure, Memory, Placement, read, write

FULL = Memory(
    started="2030-01-01T00:00:00.000000Z",
    promoted="2030-01-01T00:00:01.000000Z",
    failure=Failure(Reason.MODEL_INVALID, 'it says "no"', "abc"),
    placement=Placement(Strategy.AUTO, Strategy.REPLACE, "no room"),
    digest="sha256:" + "a" * 64,
)


@pytest.mark.parametrize("memory", [FULL, Memory(), Memory(started="2030-01-01T00:00:00.000000Z")])
def test_there_and_back(memory: Memory) -> None:
    assert read(write(memory)) == memory


def test_nothing_is_written_of_what_is_unknown() -> None:
    assert write(Memory()) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "{}", '{"reason": "Nonsense", "message": "", "spec": ""}'])
def test_spoilt_annotations_count_as_absent(text: str) -> None:
    spoilt = {names.ANNOTATION_FAILED: text, names.ANNOTATION_STRATEGY: text, "else": "where"}
    assert read(spoilt) == Memory()
