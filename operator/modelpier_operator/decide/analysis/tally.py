"""From counters of pods to what happened since the last scrape.

Last samples live in the operator's memory alone. After a restart of the operator each pod counts from its first new
sample: what it did in between is no evidence for either side. Restarts are the exception: crashes that happened while
nobody looked must not be forgotten, so those that were counted are kept in the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from modelpier_operator.decide.analysis.samples import Block, Counts, Sample
from modelpier_operator.decide.analysis.state import State


@dataclass(frozen=True)
class Tally:
    since: float = 0.0
    """Seconds of the analysis at which this tally begins: 0, or the last look before the operator's restart."""
    candidate: Mapping[str, Sample] = field(default_factory=dict)
    stable: Mapping[str, Sample] = field(default_factory=dict)
    """Last samples by pod; those of dead pods stay, since a pod that was only out of reach comes back."""
    restarts: Mapping[str, int] = field(default_factory=dict)
    """By pod, of pods that have any: what has been counted."""


def resumed(state: State) -> Tally:
    """After a restart of the operator, or at the beginning."""
    return Tally(state.elapsed, restarts=state.restarts)


def remembered(state: State, tally: Tally) -> State:
    """To be written after each look."""
    return replace(state, restarts=tally.restarts)


def observe(
    tally: Tally, candidate: Mapping[str, Sample], stable: Mapping[str, Sample], restart_failures: int
) -> tuple[Tally, Block]:
    """Pods that could not be scraped are left out of the mappings. Each restart counts as `restart_failures` failed
    requests on either side: the requests that a crash takes with it are in no counter.
    """
    restarts = dict(tally.restarts)
    block = Block(
        _side(tally.since, tally.candidate, candidate, restarts, restart_failures),
        _side(tally.since, tally.stable, stable, restarts, restart_failures),
    )
    return Tally(tally.since, {**tally.candidate, **candidate}, {**tally.stable, **stable}, restarts), block


def _side(
    since: float, last: Mapping[str, Sample], now: Mapping[str, Sample], restarts: dict[str, int], restart_failures: int
) -> Counts:
    found = Counts()
    for pod, sample in now.items():
        found = found.plus(_grown(since, last.get(pod), sample))
        crashes = sample.restarts - _counted(last.get(pod), pod, sample, restarts)
        if sample.restarts:
            restarts[pod] = max(sample.restarts, restarts.get(pod, 0))
        found = replace(found, failed=found.failed + max(0, crashes) * restart_failures)
    return found


def _grown(since: float, last: Sample | None, sample: Sample) -> Counts:
    if last is None:
        return sample.counts if sample.born >= since else Counts()
    # Counters of a busy server may have overtaken their old values since its restart.
    return sample.counts.since(last.counts) if sample.restarts == last.restarts else sample.counts


def _counted(last: Sample | None, pod: str, sample: Sample, restarts: Mapping[str, int]) -> int:
    """Restarts of this pod that were counted, or happened before the analysis."""
    if last is not None:
        return last.restarts
    return restarts.get(pod, 0 if sample.born >= 0 else sample.restarts)
