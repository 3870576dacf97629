"""The convergence suite over the API in memory, where hours pass in milliseconds."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from convergence.grounds import MemoryGround
from convergence.machine import Act, Machine, programs
from convergence.scenarios import SCENARIOS, ends

pytestmark = pytest.mark.timeout(600)  # a minute of one processor, which others may want too


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str) -> None:
    told = Machine(MemoryGround()).play(SCENARIOS[name])
    assert ends(name, told), told


# Twice, so that two processes share them: hypothesis draws other examples for each.
@pytest.mark.parametrize("half", [1, 2])
@given(program=programs(20))
@settings(
    max_examples=60,
    deadline=None,
    # Making a failure smaller takes minutes: take the printed program into SCENARIOS and cut it there.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
def test_converges(half: int, program: list[Act]) -> None:
    Machine(MemoryGround()).play(program)
