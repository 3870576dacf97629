"""The types refuse what the CRD refuses; tests/control_plane holds both against each other on the real API server."""

from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from modelpier_operator.api.v1alpha1 import parse_spec
from support.specs import broken_values, smallest, spec_values


@given(spec_values)
def test_what_is_right_is_taken(raw: dict[str, Any]) -> None:
    assert parse_spec(raw).model.uri == raw["model"]["uri"]


@given(broken_values)
def test_what_is_wrong_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parse_spec(raw)


def test_quantities_are_canonical_once_parsed() -> None:
    resources = parse_spec(smallest(resources={"cpu": "0.5", "memory": "2048Mi", "cpuLimit": "1000m"})).resources
    assert (resources.cpu, resources.memory, resources.cpu_limit) == ("500m", "2Gi", "1")


def test_defaults_are_canonical() -> None:
    plain, written = parse_spec(smallest()), parse_spec(smallest(resources={"cpu": "1", "memory": "2Gi"}))
    assert plain == written


def test_an_override_needs_no_gpu_field_for_a_gpu_provider() -> None:
    providers = [{"name": "CUDAExecutionProvider"}]
    claimed = {"podTemplate": {"spec": {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one"}]}}}
    assert parse_spec(smallest(server={"executionProviders": providers}, resources=claimed))
