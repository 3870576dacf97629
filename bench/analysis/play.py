"""Plays a scenario: traffic, scrapes and verdicts, until 2,000 candidate requests or five minutes have gone by."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis.referee import Referee
from bench.analysis.scenarios import Scenario
from bench.analysis.traffic import INTERVAL, blocks
from bench.analysis.twin import Twin
from modelpier_operator.decide.analysis.gates import Gates

GATES = Gates()
REQUESTS, SECONDS = 2_000, 300.0
REFEREED = 25
"""Runs of each chunk that the real analysis plays as well."""
NEVER = 0
"""Looks are counted from 1."""

Ints = NDArray[np.int64]


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
    def rolled_back(self) -> NDArray[np.bool_]:
        return np.asarray((self.failed > 0) & ((self.passed == NEVER) | (self.failed <= self.passed)))

    @property
    def promoted(self) -> NDArray[np.bool_]:
        return np.asarray((self.passed > 0) & ~self.rolled_back)


def play(scenario: Scenario, runs: int, seed: int) -> Played:
    """One chunk. The same seed gives the same runs."""
    random = np.random.default_rng([seed, zlib.crc32(f"{scenario}".encode())])
    twin, referee = Twin(runs, GATES), Referee(min(runs, REFEREED), GATES)
    passed, failed, bad, requests, seen = (np.zeros(runs, dtype=np.int64) for _ in range(5))
    intervals = int(SECONDS / INTERVAL)
    for look, (candidate, stable) in enumerate(
        blocks(random, runs, scenario.candidate, scenario.stable_pods, intervals), start=1
    ):
        going = (seen < REQUESTS) & (failed == NEVER)
        if not going.any():
            break
        seen += candidate.answered + candidate.failed
        fails, passes = twin.look(candidate, stable)
        bad += np.where(going, candidate.failed, 0)
        requests += np.where(going & (passed == NEVER), candidate.answered + candidate.failed, 0)
        referee.look(look * INTERVAL, candidate, stable)
        failed[going & fails] = look
        passed[going & passes & ~fails & (passed == NEVER)] = look
        referee.compare(look, fails, passes, going)
    return Played(passed, failed, bad, requests)


def joined(parts: list[Played]) -> Played:
    fields: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in Played.__dataclass_fields__
    }
    return Played(**fields)
