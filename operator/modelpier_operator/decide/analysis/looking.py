"""One look: what has come since the last one is added to the evidence, and the verdict follows.

The rollout calls `look` after each scrape and acts on the verdict: PASS ends the step, FAIL takes the candidate away,
PAUSE leaves the weight as it is until somebody decides. FAIL is final. A paused step never passes by itself, but it can
still fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from math import log

from modelpier_operator.decide.analysis import claims, words
from modelpier_operator.decide.analysis.claims import Claim
from modelpier_operator.decide.analysis.gates import Gates, Memory
from modelpier_operator.decide.analysis.samples import Block
from modelpier_operator.decide.analysis.state import Failure, State, seen_too
from modelpier_operator.decide.analysis.wealth import Wealth, total

PATIENCE = 3
"""Looks in a row above the limit of memory: garbage is collected, and a peak is none."""


class Outcome(StrEnum):
    CONTINUE = "Continue"
    PASS = "Pass"  # noqa: S105 - no password
    FAIL = "Fail"
    PAUSE = "Pause"


@dataclass(frozen=True)
class Verdict:
    outcome: Outcome
    message: str
    """For status: a sentence with the numbers."""
    gate: str | None = None
    """That failed, or that still lacks evidence."""


@dataclass(frozen=True)
class Holding:
    """Bytes of the largest pod of each side; None: unknown."""

    candidate: int | None = None
    stable: int | None = None


def look(
    state: State, block: Block, gates: Gates, elapsed: float, holding: Holding = Holding()
) -> tuple[State, Verdict]:
    """`elapsed`: seconds since the analysis began."""
    if state.failure:
        return state, Verdict(Outcome.FAIL, state.failure.message, state.failure.gate)
    state = _weigh(state, block, gates, max(elapsed, state.elapsed), holding)
    failure = _failure(state, block, gates, holding)
    if failure:
        return replace(state, failure=failure), Verdict(Outcome.FAIL, failure.message, failure.gate)
    lacking = _lacking(state, gates)
    if not lacking and not state.paused:
        return state, Verdict(Outcome.PASS, words.passed(state, gates))
    if state.paused or state.elapsed - state.step_began >= gates.max_wait:
        return replace(state, paused=True), Verdict(Outcome.PAUSE, words.paused(state, gates, lacking), lacking)
    return state, Verdict(Outcome.CONTINUE, words.going_on(state, gates, lacking), lacking)


def _weigh(state: State, block: Block, gates: Gates, elapsed: float, holding: Holding) -> State:
    """Comparisons wait until both sides have had a request: without one of them there is nothing to compare with."""
    asked = list(claims.alone(gates, block))
    pending, seen = state.pending.plus(block), state.seen
    if pending.candidate.requests and pending.stable.requests:
        asked += claims.compared(gates, pending, seen)
        pending, seen = Block(), seen_too(seen, pending)
    return replace(
        state,
        elapsed=elapsed,
        step_requests=state.step_requests + block.candidate.requests,
        seen=seen,
        pending=pending,
        wealth=_richer(state.wealth, asked),
        over_memory=state.over_memory + 1 if over(gates.memory, holding) else 0,
    )


def _richer(wealth: Mapping[str, Wealth], asked: Iterable[Claim]) -> Mapping[str, Wealth]:
    return {**wealth, **{claim.key: wealth.get(claim.key, Wealth()).after(claim) for claim in asked}}


def over(gate: Memory | None, holding: Holding) -> bool:
    if gate is None or holding.candidate is None:
        return False
    if gate.most is not None and holding.candidate > gate.most:
        return True
    return gate.ratio is not None and holding.stable is not None and holding.candidate > gate.ratio * holding.stable


def _failure(state: State, block: Block, gates: Gates, holding: Holding) -> Failure | None:
    """All gates share the probability of a false alarm."""
    kept, measured = claims.keys(gates), {claims.latency_name(gate): gate for gate in gates.latency}
    for name, keys in kept.items():
        if _against(state.wealth, keys) < log(len(kept) / gates.false_alarm):
            continue
        if name not in measured or claims.slower(measured[name], state.everything) is not None:
            return Failure(name, words.failed(name, state, block, gates))
    if state.over_memory >= PATIENCE and gates.memory and holding.candidate is not None:
        return Failure("memory", words.too_large(holding.candidate, holding.stable, gates.memory))
    return None


def _against(wealth: Mapping[str, Wealth], keys: tuple[str, ...]) -> float:
    """The claims of a gate share its money."""
    return total(wealth.get(key, Wealth()).against for key in keys) - log(len(keys))


def _lacking(state: State, gates: Gates) -> str | None:
    """What keeps this step from passing; both bounds of a quantile have to speak for it."""
    if state.step_requests < gates.minimum_samples:
        return "minimum_samples"
    enough = log(1 / gates.missed)
    for name, keys in claims.keys(gates).items():
        if min(state.wealth.get(key, Wealth()).in_favour for key in keys) < enough:
            return name
    return "memory" if state.over_memory else None
