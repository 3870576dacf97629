"""Gates that cannot work are named, with the remedy."""

from __future__ import annotations

import pytest

from modelpier_operator.decide.analysis.gates import Gates, Latency, Rate


def test_the_defaults_work() -> None:
    assert list(Gates().problems()) == []


@pytest.mark.parametrize(
    ("gates", "field"),
    [
        (Gates(errors=Rate(worse=0.7)), "errors.worse is 0.7"),
        (Gates(nonfinite=Rate(most=-0.1)), "nonfinite.most is -0.1"),
        (Gates(latency=(Latency(99.0),)), "latency.quantile is 99.0"),
        (Gates(latency=(Latency(0.9, 1.0),)), "latency.ratio is 1.0"),
        (Gates(latency=(Latency(0.9), Latency(0.9, 1.5))), "latency names a quantile twice"),
        (Gates(agreement=99.0), "agreement is 99.0"),
        (Gates(max_wait=0.0), "max_wait is 0.0"),
        (Gates(restart_failures=0), "restart_failures is 0"),
        (Gates(false_alarm=0.0), "false_alarm is 0.0"),
        (Gates(missed=1.0), "missed is 1.0"),
    ],
)
def test_what_cannot_work(gates: Gates, field: str) -> None:
    (found,) = gates.problems()
    assert found.startswith(field)
    assert ": " in found
