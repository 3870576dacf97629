"""A spec as typed values, by its content: parsed and hashed once, however many passes look at it.

The memo is keyed by the bytes of the JSON, so that a pass stays a function of its input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import _lru_cache_wrapper, lru_cache
from typing import Any, TypeVar

import orjson
from pydantic import ValidationError

from modelpier_operator import names
from modelpier_operator.api.normalise import normalise
from modelpier_operator.api.v1alpha1 import ModelDeploymentSpec, parse_snapshot, parse_spec
from modelpier_operator.settings import Settings

T = TypeVar("T")

_REMEMBERED = 512
_LONGEST = 16 * 1024
"""Bytes of what is remembered: whoever may edit a ModelDeployment must not be able to fill the operator's memory."""
_NO_MATTER = {"replicas", "access"}
"""To a rollout: what was given up is not tried again because of them."""


@dataclass(frozen=True)
class Intent:
    spec: ModelDeploymentSpec
    hash: str
    """The revision hash: of `snapshot`."""
    snapshot: Mapping[str, Any]
    """What is served, and nothing of how many or how to get there."""


def of(spec: Mapping[str, Any]) -> Intent:
    """Of a ModelDeployment. Raises pydantic.ValidationError."""
    return _known(_of, orjson.dumps(spec))


def remembered(taken: Mapping[str, Any]) -> ModelDeploymentSpec:
    """Of the snapshot in a revision. Raises pydantic.ValidationError for one that was tampered with."""
    return _known(_remembered, orjson.dumps(taken))


def attempt(spec: Mapping[str, Any]) -> str:
    """Hash of what a rollout depends on: the whole spec without `replicas` and `access`.

    Values that are defaults do not count: another operator's CustomResourceDefinition writes out more of them, and what
    was given up would be tried once more for it.
    """
    return _known(_attempt, orjson.dumps(spec))


def server_image(spec: ModelDeploymentSpec, settings: Settings) -> str:
    """The image of new pods."""
    if spec.server.image:
        return spec.server.image
    return settings.server_image_gpu if spec.resources.gpu else settings.server_image


def _known(function: _lru_cache_wrapper[T], raw: bytes) -> T:
    return function(raw) if len(raw) <= _LONGEST else function.__wrapped__(raw)


@lru_cache(_REMEMBERED)
def _of(raw: bytes) -> Intent:
    spec = parse_spec(orjson.loads(raw))
    snapshot = normalise(spec)
    return Intent(spec, names.digest(snapshot), snapshot)


@lru_cache(_REMEMBERED)
def _attempt(raw: bytes) -> str:
    try:
        spec = _known(_of, raw).spec
    except ValidationError:
        return names.digest({key: value for key, value in orjson.loads(raw).items() if key not in _NO_MATTER})
    return names.digest(spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=_NO_MATTER))


@lru_cache(_REMEMBERED)
def _remembered(raw: bytes) -> ModelDeploymentSpec:
    return parse_snapshot(orjson.loads(raw))
