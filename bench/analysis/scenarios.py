"""What is simulated, and what must come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.analysis.traffic import Version
from modelpier_operator.decide.analysis.gates import Gates, Latency

GATES = Gates()
P99_ALONE = Gates(latency=(Latency(0.99),))


@dataclass(frozen=True)
class Scenario:
    name: str
    candidate: Version
    weight: int
    """Percent of the requests that the candidate gets; the rest goes to pods as busy as its own."""
    verdict: str = ""
    """FAIL or PASS where there is a target: at most one run in a hundred may miss it."""
    requests: int = 2_000
    seconds: float = 300.0
    """Whichever comes first ends the run."""
    gates: Gates = GATES

    @property
    def stable_pods(self) -> int:
        return round((100 - self.weight) / self.weight)


_SAME, _WRONG, _SLOW, _TAIL = Version(), Version(errors=0.05), Version(slower=1.5), Version(tail=1.5)

TARGETS: Sequence[Scenario] = tuple(
    Scenario(name, version, weight, verdict)
    for name, version, verdict in (
        ("no change", _SAME, "PASS"),
        ("errors 0.5 % -> 5 %", _WRONG, "FAIL"),
        ("p99 x 1.5, all requests slower", _SLOW, "FAIL"),
        ("p99 x 1.5, the slowest 3 % alone slower", _TAIL, "FAIL"),
    )
    for weight in (10, 50)
)
ALL_BAD: Sequence[Scenario] = tuple(
    Scenario("every answer bad", Version(errors=1.0), weight, "FAIL") for weight in (10, 50)
)
LONGER: Sequence[Scenario] = tuple(
    Scenario(f"{scenario.name}; 6,000 requests or 10 minutes", scenario.candidate, 10, "", 6_000, 600.0)
    for scenario in (TARGETS[0], TARGETS[6])
)
CURVE: Sequence[Scenario] = (
    *LONGER,
    *(replace(s, name=f"{s.name}; no gate on p50", verdict="", gates=P99_ALONE) for s in TARGETS[4:6]),
    *(
        Scenario(f"errors 0.5 % -> {100 * rate:g} %", Version(errors=rate), 50)
        for rate in (0.0075, 0.01, 0.015, 0.02, 0.03)
    ),
    *(Scenario(f"all requests x {ratio:g}", Version(slower=ratio), 50) for ratio in (1.05, 1.1, 1.2, 1.35)),
    *(Scenario(f"the slowest 3 % x {ratio:g}", Version(tail=ratio), 50) for ratio in (1.2, 2.0, 3.0)),
)
