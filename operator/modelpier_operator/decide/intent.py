"""A spec as typed values, by its content: parsed once however many passes look at it.

The memo is keyed by the bytes of the JSON, so that a pass stays a function of its input.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from modelpier_operator import names
from modelpier_operator.api.normalise import normalise
from modelpier_operator.api.v1alpha1 import ModelDeploymentSpec, parse_snapshot, parse_spec
from modelpier_operator.settings import Settings

_REMEMBERED = 512


def parsed(spec: Mapping[str, Any]) -> ModelDeploymentSpec:
    """Of a ModelDeployment. Raises pydantic.ValidationError."""
    return _parsed(orjson.dumps(spec))


def remembered(taken: Mapping[str, Any]) -> ModelDeploymentSpec:
    """Of the snapshot in a revision. Raises pydantic.ValidationError for one that was tampered with."""
    return _remembered(orjson.dumps(taken))


def snapshot(spec: ModelDeploymentSpec) -> tuple[str, Mapping[str, Any]]:
    """The revision hash and the JSON that it covers: what is served, and nothing of how many or how to get there."""
    value = normalise(spec)
    return names.digest(value), value


def attempt(spec: Mapping[str, Any]) -> str:
    """Hash of what a rollout depends on: the whole spec without `replicas`."""
    return names.digest({key: value for key, value in spec.items() if key != "replicas"})


def server_image(spec: ModelDeploymentSpec, settings: Settings) -> str:
    """The image of new pods."""
    if spec.server.image:
        return spec.server.image
    return settings.server_image_gpu if spec.resources.gpu else settings.server_image


@lru_cache(_REMEMBERED)
def _parsed(raw: bytes) -> ModelDeploymentSpec:
    return parse_spec(orjson.loads(raw))


@lru_cache(_REMEMBERED)
def _remembered(raw: bytes) -> ModelDeploymentSpec:
    return parse_snapshot(orjson.loads(raw))
