"""How strongly one span of time speaks against a claim about the candidate: the test's arithmetic.

A claim is a null hypothesis such as "the candidate fails at most one percentage point more often than the stable
version". A gambler bets against it at every look; when the claim holds, the gambler's wealth is a supermartingale
that starts at 1, so it ever reaches 1/alpha with a probability of at most alpha, however often one looks (Ville).
Wealth is therefore evidence that stays valid under continuous looking:

- Ramdas, Grünwald, Vovk, Shafer: Game-theoretic statistics and safe anytime-valid inference (Statistical Science 2023)
- Waudby-Smith, Ramdas: Estimating means of bounded random variables by betting (JRSS B 2024)
- Turner, Ly, Grünwald: Generic E-variables for exact sequential k-sample tests (CSDA 2024): two streams compared
- Howard, Ramdas, McAuliffe, Sekhon: Time-uniform, nonparametric, nonasymptotic confidence sequences (Ann. Stat. 2021)
- Johari, Koomen, Pekelis, Walsh: Always valid inference (Operations Research 2022)

In a block, n candidate requests of which each is bad or not (y = 1 or 0) meet N stable ones with badness z in [0, 1].
For the claim E[y] <= E[z] + d, a centre c and a stake b >= 0, all chosen before the block is seen,

    product (1 + b (y - c - d))  *  product (1 - b n/N (z - c))

has an expectation of at most 1: with u = E[z] - c its logarithm is at most n log(1 + b u) + N log(1 - b n/N u) <= 0.
The same holds for the claim E[y] >= E[z] + d with b <= 0. Nothing is assumed about E[z], which may change with every
block: load and pauses that hit both versions cancel.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log1p

MOST = 0.98
"""A stake that can lose all is never made: one surprise must not make the evidence blind for good."""


@dataclass(frozen=True)
class Reference:
    """The stable side of a claim in one block."""

    of: int = 0
    """Stable requests; 0: the claim is about the candidate alone."""
    bad: int = 0
    """Of badness 1."""
    part: int = 0
    """Of badness `weight`."""
    weight: float = 0.0
    margin: float = 0.0
    """d: how much worse the claim lets the candidate be."""
    expected: float = 0.0
    """Mean badness as it was in earlier blocks."""

    @property
    def limit(self) -> float:
        """The candidate's share of bad requests up to which the claim may hold, as far as one can tell beforehand."""
        return min(self.expected + self.margin, 1.0)


def evidence(bad: int, of: int, reference: Reference, share: float) -> float:
    """Logarithm of what a stake becomes in this block when it is put on the candidate's true share being `share`.
    Above the reference's limit it speaks against "at most", below it against "at least".
    """
    if not of or share == reference.limit:
        return 0.0
    centre = _centre(of, reference, share)
    against = centre + reference.margin
    stake = _stake(of, reference, share, centre)
    if not stake:
        return 0.0
    won = _log(bad, stake * (1 - against)) + _log(of - bad, -stake * against)
    return won + _stable(reference, stake * of / reference.of, centre) if reference.of else won


def _centre(of: int, reference: Reference, share: float) -> float:
    """The claim's point that is nearest to the bet: both sides' means pooled, as their numbers weigh."""
    if not reference.of:
        return 0.0
    pooled = (of * (share - reference.margin) + reference.of * reference.expected) / (of + reference.of)
    return min(max(pooled, 1e-6), 1 - reference.margin - 1e-6)


def _stake(of: int, reference: Reference, share: float, centre: float) -> float:
    """As the likelihood ratio of both shares would have it, within what cannot lose all. A bet that would turn round is
    none.
    """
    against = centre + reference.margin
    stake = (share - against) / (against * (1 - against))
    if (stake > 0) != (share > reference.limit):
        return 0.0
    ratio = of / reference.of if reference.of else 0.0
    loss = max(against, ratio * (1 - centre)) if stake > 0 else max(1 - against, ratio * centre)
    return max(-MOST / loss, min(MOST / loss, stake))


def _stable(reference: Reference, stake: float, centre: float) -> float:
    good = reference.of - reference.bad - reference.part
    return (
        _log(reference.bad, -stake * (1 - centre))
        + _log(reference.part, -stake * (reference.weight - centre))
        + _log(good, stake * centre)
    )


def _log(times: int, gain: float) -> float:
    return times * log1p(gain) if times else 0.0
