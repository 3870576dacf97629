"""Requests to two versions as they would come: heavy-tailed latency that remembers, load and pauses that hit both.

Many runs at once, one per row; each call of `blocks` gives what one scrape interval brought. Every pod's latencies are
an AR(1) in logarithms; one request in sixty belongs to a class of its own with a Pareto tail; the load moves both
versions slowly; now and then everything stands still, for both, and what stood fails more often.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelpier_server.telemetry import SECONDS

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

BOUNDS = np.asarray(SECONDS)
INTERVAL = 2.0
"""Seconds between scrapes."""
PER_POD = 16.0
"""Requests of a pod in an interval: a candidate of one pod has had 2,000 after 250 s."""
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


@dataclass
class _Pods:
    """Keeps the AR(1) of each pod."""

    count: int
    carry: Floats


def blocks(
    random: np.random.Generator, runs: int, candidate: Version, stable_pods: int, intervals: int
) -> Iterator[tuple[Side, Side]]:
    """(candidate, stable) of each interval. The candidate has one pod."""
    scale = np.exp(random.uniform(np.log(0.004), np.log(0.04), (runs, 1, 1))).astype(np.float32)
    load = random.standard_normal(runs, dtype=np.float32) * LOAD
    sides = [(_start(random, runs, 1), candidate), (_start(random, runs, stable_pods), Version())]
    for _ in range(intervals):
        load = LOAD_MEMORY * load + np.sqrt(1 - LOAD_MEMORY**2) * LOAD * random.standard_normal(runs, dtype=np.float32)
        pause = np.where(random.random(runs) < PAUSE, random.uniform(0.05, 1.0, runs), 0.0).astype(np.float32)
        base = scale * np.exp(load)[:, None, None]
        first, second = (_side(random, pods, version, base, pause) for pods, version in sides)
        yield first, second


def _start(random: np.random.Generator, runs: int, pods: int) -> _Pods:
    return _Pods(pods, random.standard_normal((runs, pods), dtype=np.float32))


def _side(random: np.random.Generator, pods: _Pods, version: Version, base: Floats, pause: Floats) -> Side:
    runs = len(pause)
    counts = np.maximum(1, random.poisson(PER_POD, (runs, pods.count)))
    most = int(counts.max())
    there = np.arange(most) < counts[..., None]
    waited = random.random((runs, pods.count, most), dtype=np.float32) * INTERVAL < pause[:, None, None]
    chance = version.errors + waited * np.float32(PAUSED_FAIL)
    failed = there & (random.random((runs, pods.count, most), dtype=np.float32) < chance)
    answered = there & ~failed
    seconds = latencies(random, pods.carry, most, version) * base
    seconds += waited * pause[:, None, None] * random.random(waited.shape, dtype=np.float32)
    seconds[~answered] = np.inf
    flat = seconds.reshape(runs, -1)
    upto = np.stack([np.count_nonzero(flat <= bound, axis=1) for bound in BOUNDS], axis=1)
    return Side(answered.sum(axis=(1, 2)), failed.sum(axis=(1, 2)), upto)


def latencies(random: np.random.Generator, carry: Floats, number: int, version: Version) -> Floats:
    """In units of the median; moves `carry` on."""
    steps = np.arange(number)
    powers = np.tril(MEMORY ** (steps[:, None] - steps[None, :])) * np.sqrt(1 - MEMORY**2)
    noise = random.standard_normal((*carry.shape, number), dtype=np.float32)
    path = noise @ powers.T.astype(np.float32) + carry[..., None] * (MEMORY ** (steps + 1)).astype(np.float32)
    carry[...] = path[..., -1]
    found = np.exp(SIGMA * path)
    heavy = random.random(found.shape, dtype=np.float32) < HEAVY
    found[heavy] *= FACTOR * random.random(int(heavy.sum()), dtype=np.float32) ** np.float32(-1 / ALPHA)
    if version.tail > 1.0:
        found[found > slow_from()] *= version.tail
    return np.asarray(found * version.slower, dtype=np.float32)


_SLOW: list[float] = []


def slow_from() -> float:
    """Where the slowest SLOWEST begin, in units of the median."""
    if not _SLOW:
        random = np.random.default_rng(1)
        carry = random.standard_normal((20_000, 1), dtype=np.float32)
        _SLOW.append(float(np.quantile(latencies(random, carry, 100, Version()), 1 - SLOWEST)))
    return _SLOW[0]
