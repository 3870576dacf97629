"""What the gates claim about one block: the questions to which `wealth` keeps the evidence.

Each gate has two claims. "At most what is tolerated": evidence against it fails the candidate. "At least what is
refused" (twice the limit): evidence against it lets the candidate pass. Of latency no slow-down at all is tolerated by
the evidence, since tails have few requests and a claim with room in it would need ten times as many; the limit is
kept by `slower`: to fail, the candidate has to be measured beyond it as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

from modelpier_operator.decide.analysis.bets import Reference
from modelpier_operator.decide.analysis.gates import FLOOR, Gates, Latency, Rate
from modelpier_operator.decide.analysis.samples import Block, Counts, Histogram, shared
from modelpier_operator.decide.analysis.survival import Past

SLOTS = ("below", "above")
"""Latency has two claims for a quantile: at the bounds below and above it."""
LEARNT = 100
"""Stable requests before latency is compared: which bounds to look at has to be known."""
BURST = 1.5
"""What one block may add to the evidence that latency is worse (a factor of 4.5): requests that wait for the same
hiccup are slow together, and say no more than one."""


@dataclass(frozen=True)
class Claim:
    gate: str
    slot: str
    """One of SLOTS, for latency."""
    bad: int
    of: int
    tolerated: Reference
    refused: Reference
    sound: tuple[float, float]
    """Shares of bad requests that a good candidate may have."""
    most: float = float("inf")
    """What this block may add."""
    accuses: bool = True
    """Whether it may fail the candidate; passing it has to speak for in any case."""
    usual: float | None = None
    """The candidate's share in earlier blocks, where requests of one time are bad together: `dispersion`."""

    @property
    def key(self) -> str:
        return f"{self.gate}/{self.slot}" if self.slot else self.gate


def keys(gates: Gates) -> dict[str, tuple[str, ...]]:
    """By gate: the claims to which evidence is kept. Memory is judged without."""
    rates = (("errors", gates.errors), ("nonfinite", gates.nonfinite))
    kinds = [(f"{name}.{kind}", getattr(rate, kind)) for name, rate in rates if rate for kind in ("most", "worse")]
    found: dict[str, tuple[str, ...]] = {name: (name,) for name, limit in kinds if limit is not None}
    for gate in gates.latency:
        name = latency_name(gate)
        found[name] = tuple(f"{name}/{slot}" for slot in SLOTS)
    return {**found, "agreement": ("agreement",)} if gates.agreement is not None else found


def latency_name(gate: Latency) -> str:
    return f"p{100 * gate.quantile:g}"


def alone(gates: Gates, block: Block) -> Iterator[Claim]:
    """What concerns the candidate, whatever the stable version does."""
    of = block.candidate
    for name, rate, bad in _rates(gates, of):
        if rate.most is not None:
            yield _absolute(f"{name}.most", bad, of.requests, rate.most)
    if gates.agreement is not None:
        yield _absolute("agreement", of.compared - of.agreed, of.compared, 1 - gates.agreement)


def compared(gates: Gates, block: Block, seen: Block) -> Iterator[Claim]:
    """What concerns both; `seen`: what there was before this block."""
    of, past = block.candidate, seen.stable
    for name, rate, bad in _rates(gates, of):
        if rate.worse is not None:
            counts = (_bad(name, block.stable), block.stable.requests)
            expected = (_bad(name, past) + 0.1) / (past.requests + 10)
            yield _relative(f"{name}.worse", (bad, of.requests), counts, expected, rate.worse)
    yield from _latency(gates, block, seen)


def slower(gate: Latency, seen: Block) -> int | None:
    """The bound at which the candidate is measured to be slower than allowed, as an index into `common`."""
    ours, theirs = common(seen)
    if not ours.bounds:
        return None
    mine, known = Past(ours), Past(theirs)
    beyond = {
        index: mine.share(index) / known.reference(index, gate.ratio, theirs).expected
        for index, near in known.bounds(gate.quantile)
        if near
    }
    worst = max(beyond, key=lambda index: beyond[index])
    return worst if beyond[worst] > 1.0 else None


def common(seen: Block) -> tuple[Histogram, Histogram]:
    """Both sides' latency with the bounds that they share."""
    candidate, stable = seen.candidate.latency, seen.stable.latency
    bounds = shared(candidate, stable)
    return candidate.restricted(bounds), stable.restricted(bounds)


def _rates(gates: Gates, counts: Counts) -> Iterator[tuple[str, Rate, int]]:
    for name, rate in (("errors", gates.errors), ("nonfinite", gates.nonfinite)):
        if rate is not None:
            yield name, rate, _bad(name, counts)


def _bad(name: str, counts: Counts) -> int:
    return counts.failed if name == "errors" else counts.nonfinite


def _absolute(gate: str, bad: int, of: int, limit: float) -> Claim:
    refused = min(max(2 * limit, FLOOR), (1 + limit) / 2)  # of a large share there is no double
    return Claim(gate, "", bad, of, Reference(margin=limit), Reference(margin=refused), (refused / 8, refused / 3))


def _relative(gate: str, candidate: tuple[int, int], stable: tuple[int, int], expected: float, worse: float) -> Claim:
    bad, of = stable
    refused = max(2 * worse, FLOOR)
    tolerated = Reference(of=of, bad=bad, margin=worse, expected=expected)
    unbearable = Reference(of=of, bad=bad, margin=refused, expected=expected)
    return Claim(gate, "", *candidate, tolerated, unbearable, (expected, expected + refused / 3))


def _latency(gates: Gates, block: Block, seen: Block) -> Iterator[Claim]:
    candidate, stable = common(block)
    ours, theirs = common(seen)
    if theirs.total < LEARNT or not ours.total or not candidate.total or not stable.total:
        return
    bounds = shared(stable, theirs)
    if not bounds:
        return
    candidate, stable = candidate.restricted(bounds), stable.restricted(bounds)
    before, known = Past(ours.restricted(bounds)), Past(theirs.restricted(bounds))
    for gate in gates.latency:
        for slot, (index, near) in zip(SLOTS, known.bounds(gate.quantile), strict=True):
            tolerated = known.reference(index, 1.0, stable)
            refused = known.reference(index, gate.ratio**2, stable)
            same = known.share(index)
            sound = (same, sqrt(same * refused.expected))
            counts = (candidate.above(index), candidate.total)
            yield Claim(
                latency_name(gate), slot, *counts, tolerated, refused, sound, BURST, near, usual=before.share(index)
            )
