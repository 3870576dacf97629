"""The evidence on one claim, added up over blocks: what `bets` won, spread over what the candidate's share may be.

Nobody knows how much worse a bad candidate is, nor when it turns bad. The gambler splits the money over four sizes of
effect and keeps cash, of which a little goes to fresh bets before each block: that is a mixture over the size and over
the moment at which it begins (Howard et al. 2021 mix over sizes; Shin, Ramdas, Rinaldo: E-detectors, 2023, over
moments). So a candidate that was good for an hour and breaks is found almost as fast as one that was never good, and
the sum over all is a wealth that starts at 1. Evidence for passing mixes two sizes and starts anew with each step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import exp, inf, log

from modelpier_operator.decide.analysis.bets import Reference, evidence
from modelpier_operator.decide.analysis.claims import Claim
from modelpier_operator.decide.analysis.dispersion import Dispersion

ODDS = (1.6, 3.0, 10.0, 200.0)
"""Effects that are bet on: the odds of a bad request as multiples of the tolerated ones."""
CASH = 0.5
"""What is not bet at the beginning."""
MOMENTS = 200
"""Blocks after which half of the cash is bet."""
INDEPENDENT = Dispersion()
CERTAIN = 1000.0
"""Of what may never happen: e to this power is as good as infinite, and JSON knows it."""


@dataclass(frozen=True)
class Wealth:
    """Logarithms. `worse`: against "tolerated", per effect. `good`: against "refused", per size."""

    blocks: int = 0
    worse: tuple[float, ...] = (log((1 - CASH) / len(ODDS)),) * len(ODDS)
    good: tuple[float, float] = (log(0.5), log(0.5))
    spread: Dispersion = INDEPENDENT

    @property
    def against(self) -> float:
        """Log evidence that the candidate is worse than tolerated."""
        return min(CERTAIN, total((*self.worse, log(self.cash))))

    @property
    def in_favour(self) -> float:
        """Log evidence that it is better than refused."""
        return total(self.good)

    @property
    def cash(self) -> float:
        return CASH * MOMENTS / (MOMENTS + self.blocks)

    def after(self, claim: Claim) -> Wealth:
        if not claim.of:
            return self
        factor, spread = self.spread.factor, _spread(self.spread, claim)
        good = (self.good[0] + _in_favour(claim, 0) / factor, self.good[1] + _in_favour(claim, 1) / factor)
        if not claim.accuses:
            return replace(self, good=good, spread=spread)
        spent = self.cash / (MOMENTS + self.blocks + 1)
        fresh = log(spent / len(ODDS))
        return Wealth(
            self.blocks + 1,
            tuple(
                min(CERTAIN, total((old, fresh)) + _against(claim, odds, factor))
                for old, odds in zip(self.worse, ODDS, strict=True)
            ),
            good,
            spread,
        )

    def anew(self) -> Wealth:
        """For the next step: it has to be passed on its own, while what spoke against the candidate still counts."""
        return replace(self, good=Wealth().good)


def _spread(known: Dispersion, claim: Claim) -> Dispersion:
    stable = claim.tolerated
    if claim.usual is None or not stable.of:
        return known
    share = max(claim.usual, stable.expected)
    variance = share * (1 - share) / claim.of + stable.expected * (1 - stable.expected) / stable.of
    return known.after(claim.bad / claim.of - stable.bad / stable.of, variance)


def _against(claim: Claim, odds: float, factor: float) -> float:
    limit = claim.tolerated.limit
    if limit <= 0.0:
        return CERTAIN if claim.bad else 0.0
    return min(claim.most, evidence(claim.bad, claim.of, claim.tolerated, _at(limit, odds)) / factor)


def _at(limit: float, odds: float) -> float:
    """The share whose odds are so many times those of the limit."""
    return limit * odds / (1 - limit + limit * odds)


def _in_favour(claim: Claim, size: int) -> float:
    return evidence(claim.bad, claim.of, claim.refused, min(claim.sound[size], _below(claim.refused)))


def _below(refused: Reference) -> float:
    """A bet for passing is always on less than what is refused."""
    return 0.8 * refused.limit


def total(logs: Iterable[float]) -> float:
    """Logarithm of the sum of what they are logarithms of."""
    values = tuple(logs)
    most = max(values, default=-inf)
    return most + log(sum(exp(value - most) for value in values)) if most > -inf else most
