"""The analysis for many runs at once, in numpy: ten thousand runs of the real one would take hours.

It follows `modelpier_operator.decide.analysis` line by line for the gates that are simulated, with its constants;
`referee` plays runs of every scenario on the real code and takes no difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis.traffic import BOUNDS, Side
from modelpier_operator.decide.analysis import bets, claims, dispersion, survival, wealth
from modelpier_operator.decide.analysis.gates import FLOOR, Gates, Latency
from modelpier_operator.decide.analysis.state import LATEST

Array = NDArray[Any]


@dataclass
class Reference:
    of: Array
    bad: Array
    part: Array
    weight: Array
    margin: float
    expected: Array

    @property
    def limit(self) -> Array:
        return np.minimum(self.expected + self.margin, 1.0)


@dataclass
class Claim:
    gate: str
    slot: str
    bad: Array
    of: Array
    tolerated: Reference
    refused: Reference
    sound: tuple[Array, Array]
    asked: Array
    """Rows in which this claim is made in this block."""
    most: float = np.inf
    accuses: Array | None = None
    """Rows in which it may fail the candidate; None: in all."""
    usual: Array | None = None

    @property
    def key(self) -> str:
        return f"{self.gate}/{self.slot}" if self.slot else self.gate


def evidence(bad: Array, of: Array, r: Reference, share: Array) -> Array:
    centre = (of * (share - r.margin) + r.of * r.expected) / (of + r.of)
    centre = np.clip(centre, 1e-6, 1 - r.margin - 1e-6)
    against = centre + r.margin
    stake = (share - against) / (against * (1 - against))
    stake = np.where((stake > 0) != (share > r.limit), 0.0, stake)
    ratio = of / r.of
    loss = np.where(stake > 0, np.maximum(against, ratio * (1 - centre)), np.maximum(1 - against, ratio * centre))
    stake = np.clip(stake, -bets.MOST / loss, bets.MOST / loss)
    theirs = stake * ratio
    return np.asarray(
        bad * np.log1p(stake * (1 - against))
        + (of - bad) * np.log1p(-stake * against)
        + r.bad * np.log1p(-theirs * (1 - centre))
        + r.part * np.log1p(-theirs * (r.weight - centre))
        + (r.of - r.bad - r.part) * np.log1p(theirs * centre)
    )


def total(logs: Sequence[Array]) -> Array:
    """numpy's own logaddexp takes three times as long."""
    most = np.maximum.reduce(logs)
    return np.asarray(most + np.log(sum(np.exp(value - most) for value in logs)))


@dataclass
class Wealth:
    blocks: Array
    worse: Array
    good: Array
    spread: Array
    """Columns: scatter, pairs, last difference (NaN: none)."""

    @staticmethod
    def start(runs: int) -> Wealth:
        first, none = wealth.Wealth(), np.tile([0.0, 0.0, np.nan], (runs, 1))
        return Wealth(np.zeros(runs), np.tile(first.worse, (runs, 1)), np.tile(first.good, (runs, 1)), none)

    def of(self, rows: Array) -> Wealth:
        return Wealth(self.blocks[rows], self.worse[rows], self.good[rows], self.spread[rows])

    def _scatter(self, claim: Claim) -> Array:
        """The factor before this block, which is then counted in."""
        scatter, pairs, last = self.spread.T
        factor = np.maximum(1.0, (dispersion.DOUBT + scatter) / (dispersion.DOUBT + pairs))
        if claim.usual is not None:
            stable = claim.tolerated
            share = np.maximum(claim.usual, stable.expected)
            variance = share * (1 - share) / claim.of + stable.expected * (1 - stable.expected) / stable.of
            difference = claim.bad / claim.of - stable.bad / stable.of
            again = claim.asked & ~np.isnan(last)
            scatter[again] += ((difference - last) ** 2 / (2 * variance))[again]
            pairs[again] += 1
            last[claim.asked] = difference[claim.asked]
        return np.asarray(factor)

    @property
    def cash(self) -> Array:
        return np.asarray(wealth.CASH * wealth.MOMENTS / (wealth.MOMENTS + self.blocks))

    @property
    def against(self) -> Array:
        return np.minimum(wealth.CERTAIN, total((*self.worse.T, np.log(self.cash))))

    @property
    def in_favour(self) -> Array:
        return total(tuple(self.good.T))

    def after(self, claim: Claim) -> None:
        rows = claim.asked if claim.accuses is None else claim.asked & claim.accuses
        factor = self._scatter(claim)
        spent = self.cash - wealth.CASH * wealth.MOMENTS / (wealth.MOMENTS + self.blocks + 1)
        fresh = np.log(spent / len(wealth.ODDS))
        limit = claim.tolerated.limit
        for effect, odds in enumerate(wealth.ODDS):
            share = limit * odds / (1 - limit + limit * odds)
            won = np.minimum(claim.most, evidence(claim.bad, claim.of, claim.tolerated, share) / factor)
            grown = np.minimum(wealth.CERTAIN, total((self.worse[:, effect], fresh)) + won)
            self.worse[rows, effect] = grown[rows]
        for size, sound in enumerate(claim.sound):
            share = np.minimum(sound, 0.8 * claim.refused.limit)
            self.good[claim.asked, size] += (evidence(claim.bad, claim.of, claim.refused, share) / factor)[claim.asked]
        self.blocks[rows] += 1


class Past:
    def __init__(self, upto: Array, total: Array) -> None:
        self._shares = (total[:, None] - upto + 0.5) / (total[:, None] + 1.0)
        self._all = (total + 0.5) / (total + 1.0)
        self._rows = np.arange(len(total))

    def share(self, index: Array) -> Array:
        return self._shares[self._rows, index]

    def bounds(self, quantile: float) -> Iterator[tuple[Array, Array]]:
        tail = 1 - quantile
        low = self._shares <= tail
        upper = np.where(low.any(axis=1), low.argmax(axis=1), len(BOUNDS) - 1)
        pair = (np.maximum(0, upper - 1), upper)
        far = [np.abs(_log_odds(self.share(i)) - log(tail / (1 - tail))) for i in pair]
        nearest = np.minimum(*far)
        for index, distance in zip(pair, far, strict=True):
            yield index, (distance <= log(survival.NEAR)) | (distance == nearest)

    def reference(self, index: Array, ratio: float, now: Array, total: Array) -> Reference:
        place = BOUNDS[index] / ratio
        bucket = np.searchsorted(BOUNDS, place)
        lower = np.where(bucket > 0, BOUNDS[bucket - 1], BOUNDS[bucket] / survival.FIRST)
        depth = np.minimum(1.0, np.log(BOUNDS[bucket] / place) / np.log(BOUNDS[bucket] / lower))
        high = self.share(bucket)
        low = np.where(bucket > 0, self.share(bucket - 1), self._all)
        weight = _inside(low, high, depth)
        bad = total - now[self._rows, bucket]
        above_lower = total - np.where(bucket > 0, now[self._rows, bucket - 1], 0)
        return Reference(total, bad, above_lower - bad, weight, 0.0, high + weight * (low - high))


def _inside(low: Array, high: Array, depth: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = _log_odds(high) + depth * (_log_odds(low) - _log_odds(high))
        between = (1 / (1 + np.exp(-odds)) - high) / (low - high)
    return np.where(low <= high, depth, between)


def _log_odds(share: Array) -> Array:
    return np.asarray(np.log(share / (1 - share)))


@dataclass
class Twin:
    """What `looking.look` does with each block, for all rows; after a verdict as well."""

    runs: int
    gates: Gates
    requests: Array = field(init=False)
    past: tuple[Array, Array, Array] = field(init=False)
    """Failed, answered and buckets of the stable version so far."""
    seen: tuple[Array, Array, Array] = field(init=False)
    """And of the candidate."""
    wealth: dict[str, Wealth] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.requests = np.zeros(self.runs, dtype=np.int64)
        self.past, self.seen = self._nothing(), self._nothing()

    def _nothing(self) -> tuple[Array, Array, Array]:
        return self.requests.copy(), self.requests.copy(), np.zeros((self.runs, len(BOUNDS)), dtype=np.int64)

    def look(self, candidate: Side, stable: Side) -> tuple[Array, Array]:
        """(rows that fail, rows that would pass) by what is known now."""
        self.requests += candidate.answered + candidate.failed
        for claim in self._claims(candidate, stable):
            self._of(claim.key).after(claim)
        self._see(candidate, stable)
        return self._fail(), self._pass()

    def _claims(self, candidate: Side, stable: Side) -> Iterator[Claim]:
        _, answered, upto = self.past
        if self.gates.errors and self.gates.errors.worse is not None:
            yield self._errors(candidate, stable, self.gates.errors.worse)
        ready = (answered >= claims.LEARNT) & (candidate.answered > 0) & (stable.answered > 0)
        if not ready.any():
            return
        before, known = Past(self.seen[2], self.seen[1]), Past(upto, answered)
        ready &= self.seen[1] > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            for gate in self.gates.latency:
                for slot, (index, near) in zip(claims.SLOTS, known.bounds(gate.quantile), strict=True):
                    tolerated = known.reference(index, 1.0, stable.upto, stable.answered)
                    refused = known.reference(index, gate.ratio**2, stable.upto, stable.answered)
                    same = known.share(index)
                    sound = (same, np.sqrt(same * refused.expected))
                    bad = candidate.answered - candidate.upto[np.arange(self.runs), index]
                    counts, name = (bad, candidate.answered), claims.latency_name(gate)
                    usual = before.share(index)
                    yield Claim(name, slot, *counts, tolerated, refused, sound, ready, claims.BURST, near, usual)

    def _errors(self, candidate: Side, stable: Side, worse: float) -> Claim:
        failed, answered, _ = self.past
        of, expected = stable.answered + stable.failed, (failed + 0.1) / (failed + answered + 10)
        none, weight, most = np.zeros_like(of), np.zeros(self.runs), max(2 * worse, FLOOR)
        tolerated = Reference(of, stable.failed, none, weight, worse, expected)
        refused = Reference(of, stable.failed, none, weight, most, expected)
        requests = candidate.answered + candidate.failed
        sound = (expected, expected + most / 3)
        return Claim("errors.worse", "", candidate.failed, requests, tolerated, refused, sound, requests > 0)

    def _fail(self) -> Array:
        found, kept = np.zeros(self.runs, dtype=bool), claims.keys(self.gates)
        slower = {claims.latency_name(gate): self._slower(gate) for gate in self.gates.latency}
        for name, keys in kept.items():
            against = total([self._of(key).against for key in keys]) - log(len(keys))
            found |= (against >= log(len(kept) / self.gates.false_alarm)) & slower.get(name, True)
        return found

    def _slower(self, gate: Latency) -> Array:
        (_, answered, upto), (_, ours, ours_upto) = self.past, self.seen
        mine, known, found = Past(ours_upto, ours), Past(upto, answered), np.zeros(self.runs, dtype=bool)
        for index, near in known.bounds(gate.quantile):
            found |= near & (mine.share(index) > known.reference(index, gate.ratio, upto, answered).expected)
        return found

    def _see(self, candidate: Side, stable: Side) -> None:
        for known, side in ((self.past, stable), (self.seen, candidate)):
            for sums, counts in zip(known, (side.failed, side.answered, side.upto), strict=True):
                np.add(sums, counts, out=sums)
        many = self.seen[0] + self.seen[1] >= LATEST
        for sums in (*self.past, *self.seen) if many.any() else ():
            sums[many] //= 2

    def _pass(self) -> Array:
        found = self.requests >= self.gates.minimum_samples
        for keys in claims.keys(self.gates).values():
            for key in keys:
                found &= self._of(key).in_favour >= log(1 / self.gates.missed)
        return np.asarray(found)

    def keep(self, rows: Array) -> None:
        """The others have had their verdicts."""
        self.runs, self.requests = int(rows.sum()), self.requests[rows]
        failed, answered, upto = self.past
        self.past = failed[rows], answered[rows], upto[rows]
        failed, answered, upto = self.seen
        self.seen = failed[rows], answered[rows], upto[rows]
        for key, known in self.wealth.items():
            self.wealth[key] = known.of(rows)

    def _of(self, key: str) -> Wealth:
        return self.wealth.setdefault(key, Wealth.start(self.runs))
