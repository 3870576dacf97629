"""What a candidate is allowed. The figures are the user's; what follows from them is said beside each gate.

Each gate has one limit. A version within it is failed with a probability of at most `Gates.false_alarm`; for latency
that is so for a version that is no slower at all, and one that is slower is failed if it is measured beyond the limit.
A version beyond twice the limit (a ratio: beyond its square) is passed with a probability of at most `Gates.missed`.
For latency that is meant of the bounds beside the quantile, and holds as far as `survival` is right about what lies
between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FLOOR = 0.01
"""No number of good answers shows that there are no bad ones: a limit of 0 is taken to be kept below this share."""


@dataclass(frozen=True)
class Rate:
    """A share of bad requests: failures, or answers that are not finite."""

    most: float | None = None
    """Of the candidate's requests, whatever the stable version does. 0: the first bad one fails it."""
    worse: float | None = None
    """How far above the stable version's share in the same time."""


@dataclass(frozen=True)
class Latency:
    quantile: float
    """0.5, 0.9, 0.99 ..."""
    ratio: float = 1.2
    """Of the candidate's quantile to the stable version's, over the same time."""


@dataclass(frozen=True)
class Memory:
    """Of the pod that holds most, at three looks in a row."""

    most: int | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Gates:
    errors: Rate | None = Rate(worse=0.01)
    latency: tuple[Latency, ...] = (Latency(0.5), Latency(0.99))
    nonfinite: Rate | None = None
    agreement: float | None = None
    """The least share of shadow answers that agree."""
    memory: Memory | None = None
    minimum_samples: int = 100
    """Requests of the candidate in this step without which nothing passes."""
    max_wait: float = 600.0
    """Seconds of a step after which a person has to decide."""
    restart_failures: int = 3
    """Failed requests that a restart of a container counts as."""
    false_alarm: float = 0.01
    missed: float = 0.01

    def problems(self) -> Iterator[str]:
        """What cannot work, with the field and the remedy; nothing if all is well."""
        for name, rate in (("errors", self.errors), ("nonfinite", self.nonfinite)):
            yield from _rate(name, rate)
        yield from _latency(self.latency)
        if self.agreement is not None and not 0.0 < self.agreement <= 1.0:
            yield f"agreement is {self.agreement}: give a share above 0, at most 1"
        if self.max_wait <= 0:
            yield f"max_wait is {self.max_wait}: give a number of seconds above 0"
        if self.restart_failures < 1:
            yield f"restart_failures is {self.restart_failures}: give at least 1"
        for name, value in (("false_alarm", self.false_alarm), ("missed", self.missed)):
            if not 0.0 < value < 0.5:
                yield f"{name} is {value}: give a probability above 0 and below 0.5"


def _rate(name: str, rate: Rate | None) -> Iterator[str]:
    for field, value in (("most", rate.most), ("worse", rate.worse)) if rate else ():
        if value is not None and not 0.0 <= value < 0.5:
            yield f"{name}.{field} is {value}: give a share of 0 or more, below 0.5"


def _latency(gates: tuple[Latency, ...]) -> Iterator[str]:
    for gate in gates:
        if not 0.0 < gate.quantile < 1.0:
            yield f"latency.quantile is {gate.quantile}: give a share between 0 and 1, such as 0.99"
        if gate.ratio <= 1.0:
            yield f"latency.ratio is {gate.ratio}: give a ratio above 1, such as 1.2"
    if len({gate.quantile for gate in gates}) < len(gates):
        yield "latency names a quantile twice: keep one of them"
