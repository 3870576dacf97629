"""Requests to two versions as they would come: heavy-tailed latency that remembers, load and pauses that hit both.

Many runs at once, one per row; each `interval` is what one scrape brings. Every pod's latencies are
an AR(1) in logarithms; one request in sixty belongs to a class of its own with a Pareto tail; the load moves both
versions slowly; now and then everything stands still, for both, and what stood fails more often.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from modelpier_server.telemetry import SECONDS

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

BOUNDS = np.asarray(SECONDS)
INTERVAL = 2.0
"""Seconds between scrapes."""
PER_POD = (12, 20)
"""Requests of a pod in an interval, 16 on average: a candidate of one pod has had 2,000 after 250 s."""
SIGMA, MEMORY = 0.5, 0.7
HEAVY, FACTOR, ALPHA = 1 / 60, 2.0, 2.0
"""Share, multiple and exponent of the heavy class."""
LOAD, LOAD_MEMORY = 0.15, 0.95
PAUSE, PAUSED_FAIL = 0.01, 0.02
"""Probability of a pause in an interval; of a failure more, for what waited in it."""
SLOWEST = 0.03


@dataclass(frozen=True)
class Version:
    errors: float = 0.005
    slower: float = 1.0
    tail: float = 1.0
    """How much slower the slowest SLOWEST are."""


@dataclass(frozen=True)
class Side:
    """One version in one interval, a row per run."""

    answered: Ints
    failed: Ints
    upto: Ints
    """By bound, as a server exports them."""
    slow: Ints
    """Beyond the stable version's true p99: nobody but the simulation knows it."""


class Traffic:
    """Of so many runs. The candidate has one pod."""

    def __init__(self, random: np.random.Generator, runs: int, candidate: Version, stable_pods: int) -> None:
        self._random = random
        self._scale = np.exp(random.uniform(np.log(0.004), np.log(0.04), runs)).astype(np.float32)
        self._load = random.standard_normal(runs, dtype=np.float32) * LOAD
        self._versions = (candidate, Version())
        self._carry = [random.standard_normal((runs, pods), dtype=np.float32) for pods in (1, stable_pods)]

    def interval(self) -> tuple[Side, Side]:
        """(candidate, stable) of the next one."""
        random, runs = self._random, len(self._scale)
        self._load = _moved(random, self._load)
        pause = np.where(random.random(runs) < PAUSE, random.uniform(0.05, 1.0, runs), 0.0).astype(np.float32)
        first, second = (self._side(carry, v, pause) for carry, v in zip(self._carry, self._versions, strict=True))
        return first, second

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """The other runs are over."""
        self._scale, self._load = self._scale[rows], self._load[rows]
        self._carry = [carry[rows] for carry in self._carry]

    def _side(self, carry: Floats, version: Version, pause: Floats) -> Side:
        random, (runs, pods) = self._random, carry.shape
        counts = random.integers(*PER_POD, (runs, pods), endpoint=True)
        seconds = latencies(random, carry, PER_POD[1], version)
        seconds *= (self._scale * np.exp(self._load))[:, None, None]
        chance = np.full(seconds.shape, version.errors, dtype=np.float32)
        for run in np.flatnonzero(pause):
            waited = random.random(seconds[run].shape) * INTERVAL < pause[run]
            seconds[run] += waited * pause[run] * random.random(waited.shape, dtype=np.float32)
            chance[run] += waited * np.float32(PAUSED_FAIL)
        there = np.arange(PER_POD[1]) < counts[..., None]
        failed = there & (random.random(seconds.shape, dtype=np.float32) < chance)
        seconds[~there | failed] = np.inf
        flat = seconds.reshape(runs, -1)
        upto = np.stack([np.count_nonzero(flat <= bound, axis=1) for bound in BOUNDS], axis=1)
        wrong = failed.sum(axis=(1, 2))
        answered = counts.sum(axis=1) - wrong
        below = np.count_nonzero(flat <= (self._scale * quantile(0.99))[:, None], axis=1)
        return Side(answered, wrong, upto, answered - below)


def _moved(random: np.random.Generator, load: Floats) -> Floats:
    noise = random.standard_normal(len(load), dtype=np.float32)
    return np.asarray(LOAD_MEMORY * load + np.sqrt(1 - LOAD_MEMORY**2) * LOAD * noise, dtype=np.float32)


def latencies(random: np.random.Generator, carry: Floats, number: int, version: Version) -> Floats:
    """In units of the median; moves `carry` on."""
    steps = np.arange(number)
    powers = np.tril(MEMORY ** np.abs(steps[:, None] - steps[None, :])) * np.sqrt(1 - MEMORY**2)
    path = random.standard_normal((*carry.shape, number), dtype=np.float32) @ powers.T.astype(np.float32)
    path += carry[..., None] * (MEMORY ** (steps + 1)).astype(np.float32)
    carry[...] = path[..., -1]
    found = np.exp(np.float32(SIGMA) * path)
    heavy = random.random(found.shape, dtype=np.float32) < HEAVY
    found[heavy] *= FACTOR * (1 - random.random(int(heavy.sum()), dtype=np.float32)) ** np.float32(-1 / ALPHA)
    if version.tail > 1.0:
        found[found > quantile(1 - SLOWEST, loaded=False)] *= version.tail
    return np.asarray(found * np.float32(version.slower), dtype=np.float32)


@cache
def quantile(share: float, *, loaded: bool = True) -> float:
    """Of the stable version's latency, in units of its median, without pauses; with the load's ups and downs or not."""
    random = np.random.default_rng(1)
    carry = random.standard_normal((20_000, 1), dtype=np.float32)
    found = latencies(random, carry, 100, Version())
    if loaded:
        found *= np.exp(LOAD * random.standard_normal((20_000, 1, 1), dtype=np.float32))
    return float(np.quantile(found, share))
