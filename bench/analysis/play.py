"""Plays a scenario: traffic, scrapes and verdicts, until enough candidate requests or minutes have gone by."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis.referee import Referee
from bench.analysis.scenarios import Scenario
from bench.analysis.traffic import INTERVAL, PER_POD, Side, Traffic
from bench.analysis.twin import Twin

NEVER = 0
"""Looks are counted from 1."""

Ints = NDArray[np.int64]
Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Played:
    """One row per run."""

    passed: Ints
    """The look at which it would have been passed; NEVER."""
    failed: Ints
    """The look at which it failed, whether or not it would have been passed before; NEVER."""
    bad: Ints
    """Candidate's failed requests until then."""
    requests: Ints
    """Candidate's requests until the first verdict."""

    @property
    def rolled_back(self) -> Rows:
        return np.asarray((self.failed > 0) & ((self.passed == NEVER) | (self.failed <= self.passed)))

    @property
    def promoted(self) -> Rows:
        return np.asarray((self.passed > 0) & ~self.rolled_back)


def play(scenario: Scenario, runs: int, seed: int, refereed: int) -> Played:
    """One chunk. The same seed gives the same runs. `refereed`: how many of them the real analysis plays as well."""
    random = np.random.default_rng([seed, zlib.crc32(f"{scenario}".encode())])
    traffic = Traffic(random, runs, scenario.candidate, scenario.stable_pods)
    twin, referee = Twin(runs, scenario.gates), Referee(min(runs, refereed), scenario.gates)
    played = Played(*(np.zeros(runs, dtype=np.int64) for _ in range(4)))
    ids, seen = np.arange(runs), np.zeros(runs, dtype=np.int64)
    for look in range(1, int(scenario.seconds / INTERVAL) + 1):
        candidate, stable = traffic.interval()
        fails, passes = twin.look(candidate, stable)
        referee.look(look * INTERVAL, ids, (candidate, stable), (fails, passes))
        _note(played, ids, look, candidate, (fails, passes))
        seen += candidate.answered + candidate.failed
        going = (seen < scenario.requests) & ~fails
        if not going.any():
            break
        ids, seen = ids[going], seen[going]
        traffic.keep(going)
        twin.keep(going)
    return played


def _note(played: Played, ids: Ints, look: int, candidate: Side, verdicts: tuple[Rows, Rows]) -> None:
    fails, passes = verdicts
    undecided = played.passed[ids] == NEVER
    played.bad[ids] += candidate.failed
    played.requests[ids] += np.where(undecided, candidate.answered + candidate.failed, 0)
    played.failed[ids[fails]] = look
    played.passed[ids[passes & ~fails & undecided]] = look


def differences(scenario: Scenario, runs: int, seed: int) -> NDArray[np.float64]:
    """What one look at the end would see that knew the true p99: how much larger the candidate's share beyond it is."""
    random = np.random.default_rng([seed, zlib.crc32(f"{scenario}".encode())])
    traffic = Traffic(random, runs, scenario.candidate, scenario.stable_pods)
    slow, of = np.zeros((2, runs)), np.zeros((2, runs))
    for _ in range(round(scenario.requests * 2 / sum(PER_POD))):
        for row, side in enumerate(traffic.interval()):
            slow[row] += side.slow
            of[row] += side.answered
    return np.asarray(slow[0] / of[0] - slow[1] / of[1])


def joined(parts: list[Played]) -> Played:
    fields: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in Played.__dataclass_fields__
    }
    return Played(**fields)
