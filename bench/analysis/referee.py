"""The real analysis beside its twin: the same runs, and no verdict may differ."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis.traffic import Side
from modelpier_operator.decide.analysis.gates import Gates
from modelpier_operator.decide.analysis.looking import Outcome, look
from modelpier_operator.decide.analysis.samples import Block, Counts, Histogram
from modelpier_operator.decide.analysis.state import State
from modelpier_server.telemetry import SECONDS

Rows = NDArray[Any]


class TwinIsWrongError(Exception):
    """The simulation would be of something else than what decides."""


class Referee:
    """Follows the runs with the lowest numbers."""

    def __init__(self, runs: int, gates: Gates) -> None:
        self._gates = gates
        self._states = [State() for _ in range(runs)]

    def look(self, elapsed: float, ids: Rows, sides: tuple[Side, Side], verdicts: tuple[Rows, Rows]) -> None:
        """`ids`: which runs the rows of all others are, ascending."""
        for row in range(int(np.searchsorted(ids, len(self._states)))):
            run = int(ids[row])
            candidate, stable = (_counts(side, row) for side in sides)
            self._states[run], verdict = look(self._states[run], Block(candidate, stable), self._gates, elapsed)
            fails, passes = (bool(rows[row]) for rows in verdicts)
            twin = Outcome.FAIL if fails else Outcome.PASS if passes else Outcome.CONTINUE
            if verdict.outcome is not twin and verdict.outcome is not Outcome.PAUSE:
                raise TwinIsWrongError(
                    f"run {run} after {elapsed} s: the analysis says {verdict.outcome}, its twin {twin}"
                )


def _counts(side: Side, row: int) -> Counts:
    answered = int(side.answered[row])
    latency = Histogram(SECONDS, tuple(int(count) for count in side.upto[row]), answered)
    return Counts(answered, int(side.failed[row]), latency=latency)
