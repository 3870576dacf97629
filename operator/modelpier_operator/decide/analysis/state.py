"""What the analysis must remember between looks: `write` makes it JSON for an annotation, `read` takes it back.

The evidence is kept, not the samples that it came from: some 1.5 KB, however many pods and looks there were. Last
samples of pods (`tally`) are not kept; after a restart of the operator they begin anew. State that cannot be read is
absent: the analysis of this step then begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modelpier_operator.decide.analysis.dispersion import Dispersion
from modelpier_operator.decide.analysis.samples import Block, Counts, Histogram
from modelpier_operator.decide.analysis.wealth import ODDS, Wealth

VERSION = 1
EMPTY = Block()
LATEST = 4_000
"""Requests of the candidate after which what has been seen is halved: what is measured has to show a late change."""


@dataclass(frozen=True)
class Failure:
    gate: str
    message: str


@dataclass(frozen=True)
class State:
    elapsed: float = 0.0
    """Seconds from the beginning of the analysis to the last look."""
    step_began: float = 0.0
    step_requests: int = 0
    """Of the candidate, in this step."""
    seen: Block = EMPTY
    """All blocks that were compared; those before the latest LATEST requests of the candidate count for less."""
    pending: Block = EMPTY
    """Since one side had no request, and nothing could be compared."""
    wealth: Mapping[str, Wealth] = field(default_factory=dict)
    """By claim."""
    over_memory: int = 0
    """Looks in a row."""
    restarts: Mapping[str, int] = field(default_factory=dict)
    """By pod: `Tally.restarts`."""
    paused: bool = False
    failure: Failure | None = None

    @property
    def everything(self) -> Block:
        return self.seen.plus(self.pending)


def seen_too(seen: Block, block: Block) -> Block:
    total = seen.plus(block)
    return total.halved() if total.candidate.requests >= LATEST else total


def next_step(state: State) -> State:
    """The rollout gives the candidate more weight: that has to be passed on its own."""
    wealth = {key: value.anew() for key, value in state.wealth.items()}
    return replace(state, step_began=state.elapsed, step_requests=0, wealth=wealth, paused=False)


def write(state: State) -> dict[str, Any]:
    kept = {
        "version": VERSION,
        "elapsed": round(state.elapsed, 3),
        "stepBegan": round(state.step_began, 3),
        "stepRequests": state.step_requests,
        "seen": _of_block(state.seen),
        "pending": _of_block(state.pending),
        "wealth": {key: _of_wealth(value) for key, value in sorted(state.wealth.items())},
        "overMemory": state.over_memory,
        "restarts": dict(sorted(state.restarts.items())),
        "paused": state.paused,
        "failure": [state.failure.gate, state.failure.message] if state.failure else None,
    }
    return {key: value for key, value in kept.items() if value}


def read(data: Any) -> State | None:
    """None: this is no state, or one of another release."""
    try:
        return _read(data) if data["version"] == VERSION else None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def _read(data: Mapping[str, Any]) -> State:
    failure = data.get("failure")
    return State(
        elapsed=float(data.get("elapsed", 0.0)),
        step_began=float(data.get("stepBegan", 0.0)),
        step_requests=int(data.get("stepRequests", 0)),
        seen=_block(data.get("seen")),
        pending=_block(data.get("pending")),
        wealth={str(key): _wealth(value) for key, value in data.get("wealth", {}).items()},
        over_memory=int(data.get("overMemory", 0)),
        restarts={str(pod): int(count) for pod, count in data.get("restarts", {}).items()},
        paused=bool(data.get("paused", False)),
        failure=Failure(str(failure[0]), str(failure[1])) if failure else None,
    )


def _of_wealth(wealth: Wealth) -> list[float | None]:
    spread = wealth.spread
    scatter = [round(spread.scatter, 3), spread.pairs, None if spread.last is None else round(spread.last, 5)]
    return [wealth.blocks, *scatter, *(round(value, 3) for value in (*wealth.worse, *wealth.good))]


def _wealth(values: list[Any]) -> Wealth:
    blocks, scatter, pairs, last, *logs = values
    if len(logs) != len(ODDS) + 2:
        raise ValueError("other effects were bet on")
    worse = tuple(float(value) for value in logs[: len(ODDS)])
    spread = Dispersion(float(scatter), int(pairs), None if last is None else float(last))
    return Wealth(int(blocks), worse, (float(logs[-2]), float(logs[-1])), spread)


def _of_block(block: Block) -> list[Any] | None:
    """Nothing of an empty one."""
    return [_of_counts(block.candidate), _of_counts(block.stable)] if block != EMPTY else None


def _of_counts(counts: Counts) -> list[Any]:
    latency = counts.latency
    plain = [counts.answered, counts.failed, counts.nonfinite, counts.compared, counts.agreed]
    return [*plain, latency.total, list(latency.bounds), list(latency.upto)]


def _block(data: Any) -> Block:
    return Block(_counts(data[0]), _counts(data[1])) if data else EMPTY


def _counts(data: list[Any]) -> Counts:
    answered, failed, nonfinite, compared, agreed, total = (int(value) for value in data[:6])
    latency = Histogram(tuple(float(bound) for bound in data[6]), tuple(int(count) for count in data[7]), total)
    if len(latency.bounds) != len(latency.upto) or not latency.plausible:
        raise ValueError("no histogram")
    return Counts(answered, failed, nonfinite, compared, agreed, latency)
