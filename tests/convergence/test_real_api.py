"""The same suite over a real API server: the same machine and programs, and the server's own opinion of every write.

Faults stand in the client, in front of the server. Random programs are the same in every run, so that a failure comes
again; the heavy test draws others each time, and prints the one that fails.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from convergence.grounds import NAMESPACE, RealGround
from convergence.machine import Act, Machine, programs
from convergence.scenarios import SCENARIOS, ends
from modelpier_cluster import ControlPlane
from support.control_plane import missing, prepared

pytestmark = [
    pytest.mark.control_plane,
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.timeout(600),
]
# An example takes seconds here: a failure is told as it is rather than made smaller.
REAL = settings(deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), print_blob=True)


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with prepared() as made:
        made.kubectl("create", "namespace", NAMESPACE)
        # Without a controller manager nobody else makes it, and no pod is admitted without it.
        made.kubectl("create", "serviceaccount", "default", "--namespace", NAMESPACE)
        yield made


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str, control_plane: ControlPlane) -> None:
    told = Machine(RealGround(control_plane)).play(SCENARIOS[name])
    assert ends(name, told), told


@given(program=programs(16))
@settings(REAL, max_examples=6, derandomize=True)
def test_converges(control_plane: ControlPlane, program: list[Act]) -> None:
    Machine(RealGround(control_plane)).play(program)


@pytest.mark.heavy
@given(program=programs(30))
@settings(REAL, max_examples=60)
def test_converges_for_long(control_plane: ControlPlane, program: list[Act]) -> None:
    Machine(RealGround(control_plane)).play(program)
