"""The real analysis beside its twin: the same runs, and no verdict may differ."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from bench.analysis.traffic import Side
from modelpier_operator.decide.analysis.gates import Gates
from modelpier_operator.decide.analysis.looking import Outcome, look
from modelpier_operator.decide.analysis.samples import Block, Counts, Histogram
from modelpier_operator.decide.analysis.state import State
from modelpier_server.telemetry import SECONDS


class TwinIsWrongError(Exception):
    """The simulation would be of something else than what decides."""


class Referee:
    """Follows the first `runs` rows."""

    def __init__(self, runs: int, gates: Gates) -> None:
        self._gates = gates
        self._states = [State() for _ in range(runs)]
        self._verdicts = [Outcome.CONTINUE for _ in range(runs)]

    def look(self, elapsed: float, candidate: Side, stable: Side) -> None:
        for row, state in enumerate(self._states):
            if self._verdicts[row] is not Outcome.FAIL:
                block = Block(_counts(candidate, row), _counts(stable, row))
                self._states[row], verdict = look(state, block, self._gates, elapsed)
                self._verdicts[row] = verdict.outcome

    def compare(self, number: int, fails: NDArray[Any], passes: NDArray[Any], going: NDArray[Any]) -> None:
        for row, outcome in enumerate(self._verdicts):
            twin = Outcome.FAIL if fails[row] else Outcome.PASS if passes[row] else Outcome.CONTINUE
            if going[row] and outcome is not twin:
                raise TwinIsWrongError(f"run {row}, look {number}: the analysis says {outcome}, its twin {twin}")


def _counts(side: Side, row: int) -> Counts:
    answered = int(side.answered[row])
    latency = Histogram(SECONDS, tuple(int(count) for count in side.upto[row]), answered)
    return Counts(answered, int(side.failed[row]), latency=latency)
