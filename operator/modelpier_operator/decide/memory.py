"""What a rollout must remember between passes, kept in annotations of its ControllerRevision and nowhere else.

The data of a ControllerRevision is immutable, its annotations are not. Status is written for people and never read
back (docs/adr/0003). Annotations that cannot be read count as absent: the rollout then starts its clocks again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from modelpier_operator import names
from modelpier_operator.api.conditions import Reason
from modelpier_operator.api.v1alpha1 import Strategy


@dataclass(frozen=True)
class Failure:
    """Why a rollout was given up, and for which spec: another spec is another try."""

    reason: Reason
    message: str
    spec: str
    """Hash of the spec without `replicas`: scaling does not try a bad revision again."""


@dataclass(frozen=True)
class Placement:
    """The strategy that the planner chose, and why."""

    asked: Strategy
    """What the spec asked for: when that changes, the choice is made anew."""
    chosen: Strategy
    """SURGE, SWAP or REPLACE."""
    why: str


@dataclass(frozen=True)
class Memory:
    started: str | None = None
    promoted: str | None = None
    failure: Failure | None = None
    placement: Placement | None = None
    digest: str | None = None


def read(annotations: Mapping[str, str]) -> Memory:
    return Memory(
        started=annotations.get(names.ANNOTATION_STARTED),
        promoted=annotations.get(names.ANNOTATION_PROMOTED),
        failure=_failure(annotations.get(names.ANNOTATION_FAILED)),
        placement=_placement(annotations.get(names.ANNOTATION_STRATEGY)),
        digest=annotations.get(names.ANNOTATION_DIGEST),
    )


def write(memory: Memory) -> dict[str, str]:
    """Only what is known: an annotation that is absent here is removed from the object."""
    values = {
        names.ANNOTATION_STARTED: memory.started,
        names.ANNOTATION_PROMOTED: memory.promoted,
        names.ANNOTATION_FAILED: _json(memory.failure) if memory.failure else None,
        names.ANNOTATION_STRATEGY: _json(memory.placement) if memory.placement else None,
        names.ANNOTATION_DIGEST: memory.digest,
    }
    return {key: value for key, value in values.items() if value}


def _json(value: Failure | Placement) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _failure(text: str | None) -> Failure | None:
    data = _object(text)
    try:
        return Failure(Reason(data["reason"]), str(data["message"]), str(data["spec"]))
    except (KeyError, ValueError):
        return None


def _placement(text: str | None) -> Placement | None:
    data = _object(text)
    try:
        return Placement(Strategy(data["asked"]), Strategy(data["chosen"]), str(data["why"]))
    except (KeyError, ValueError):
        return None


def _object(text: str | None) -> Mapping[str, Any]:
    if not text:
        return {}
    try:
        value: Any = orjson.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
