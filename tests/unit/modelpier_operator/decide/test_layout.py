from typing import Any

import pytest

from modelpier_operator.api.v1alpha1 import parse_spec
from modelpier_operator.decide.plan import layout
from support.specs import smallest


@pytest.mark.parametrize(
    ("resources", "server", "expected"),
    [
        ({}, {}, (1, 1)),
        ({"cpu": "500m"}, {}, (1, 1)),
        ({"cpu": "3500m"}, {}, (4, 1)),
        ({"cpu": "8"}, {"threads": 2}, (4, 2)),
        ({"cpu": "8"}, {"instances": 2}, (2, 4)),
        ({"cpu": "2"}, {"instances": 4}, (4, 1)),
        ({"cpu": "2"}, {"threads": 4}, (1, 4)),
        ({"cpu": "2"}, {"instances": 3, "threads": 5}, (3, 5)),
    ],
)
def test_without_a_limit_the_request_counts(
    resources: dict[str, Any], server: dict[str, Any], expected: tuple[int, int]
) -> None:
    spec = parse_spec(smallest(resources=resources, server=server))
    assert layout(spec, on_cpu=True) == expected


def test_with_a_limit_the_server_counts_what_it_got() -> None:
    spec = parse_spec(smallest(resources={"cpu": "1", "cpuLimit": "8"}, server={"threads": 2}))
    assert layout(spec, on_cpu=True) == (0, 2)


def test_on_a_gpu_the_server_decides() -> None:
    spec = parse_spec(smallest(resources={"cpu": "8", "gpu": 1}))
    assert layout(spec, on_cpu=False) == (0, 0)
