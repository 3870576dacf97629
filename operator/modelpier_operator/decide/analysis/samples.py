"""What servers export about one revision: counters of one pod at one moment, and differences of them.

Latency is a histogram of Prometheus: upper bounds in seconds, cumulative counts, `+Inf` apart. Servers of different
releases may have different bounds; what they share is what can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Histogram:
    bounds: tuple[float, ...] = ()
    """Upper bounds in seconds, ascending, without +Inf."""
    upto: tuple[int, ...] = ()
    """Observations at or below each bound."""
    total: int = 0
    """Of all: the bucket of +Inf."""

    def above(self, index: int) -> int:
        """Observations above the bound of that index; of index -1: all."""
        return self.total - self.upto[index] if index >= 0 else self.total

    def restricted(self, bounds: tuple[float, ...]) -> Histogram:
        """The same observations with some of the bounds."""
        if bounds == self.bounds:
            return self
        known = dict(zip(self.bounds, self.upto, strict=True))
        return Histogram(bounds, tuple(known[bound] for bound in bounds), self.total)

    def plus(self, other: Histogram) -> Histogram:
        """An empty histogram has no say in the bounds."""
        if not other.total:
            return self
        if not self.total:
            return other
        mine, theirs = self.restricted(shared(self, other)), other.restricted(shared(self, other))
        upto = tuple(a + b for a, b in zip(mine.upto, theirs.upto, strict=True))
        return Histogram(mine.bounds, upto, mine.total + theirs.total)

    def since(self, earlier: Histogram) -> Histogram:
        """What came after `earlier`; everything if this one has begun anew."""
        if earlier.bounds != self.bounds or self.total < earlier.total:
            return self
        upto = tuple(new - old for new, old in zip(self.upto, earlier.upto, strict=True))
        grown = Histogram(self.bounds, upto, self.total - earlier.total)
        return grown if grown.plausible else self

    def halved(self) -> Histogram:
        return Histogram(self.bounds, tuple(count // 2 for count in self.upto), self.total // 2)

    @property
    def plausible(self) -> bool:
        """Counts that never fall from bound to bound, none of them negative."""
        return all(a <= b for a, b in zip((0, *self.upto), (*self.upto, self.total), strict=True))


def shared(one: Histogram, other: Histogram) -> tuple[float, ...]:
    return tuple(bound for bound in one.bounds if bound in other.bounds)


@dataclass(frozen=True)
class Counts:
    """Of one revision: either since a server began, or in a span of time."""

    answered: int = 0
    failed: int = 0
    """Of the server's own fault: wrong requests and callers who left are no part of it."""
    nonfinite: int = 0
    """Answers with NaN or infinity in an output, where the server counts them."""
    compared: int = 0
    """Shadow answers that were compared."""
    agreed: int = 0
    latency: Histogram = Histogram()
    """Of answered requests."""

    @property
    def requests(self) -> int:
        return self.answered + self.failed

    def plus(self, other: Counts) -> Counts:
        return Counts(
            self.answered + other.answered,
            self.failed + other.failed,
            self.nonfinite + other.nonfinite,
            self.compared + other.compared,
            self.agreed + other.agreed,
            self.latency.plus(other.latency),
        )

    def halved(self) -> Counts:
        return Counts(
            self.answered // 2,
            self.failed // 2,
            self.nonfinite // 2,
            self.compared // 2,
            self.agreed // 2,
            self.latency.halved(),
        )

    def since(self, earlier: Counts) -> Counts:
        """Every counter by itself: one that has gone down has begun anew at zero."""
        return Counts(
            _grown(self.answered, earlier.answered),
            _grown(self.failed, earlier.failed),
            _grown(self.nonfinite, earlier.nonfinite),
            _grown(self.compared, earlier.compared),
            _grown(self.agreed, earlier.agreed),
            self.latency.since(earlier.latency),
        )


def _grown(now: int, before: int) -> int:
    return now - before if now >= before else now


@dataclass(frozen=True)
class Sample:
    """One scrape of one pod."""

    counts: Counts
    restarts: int = 0
    """Of its container, as the kubelet counts them."""
    born: float = 0.0
    """Seconds from the beginning of the analysis to the pod's creation; negative: it was there before."""
    memory: int | None = None
    """Bytes that it holds now."""


@dataclass(frozen=True)
class Block:
    """What both revisions did between two scrapes."""

    candidate: Counts = Counts()
    stable: Counts = Counts()

    def halved(self) -> Block:
        return Block(self.candidate.halved(), self.stable.halved())

    def plus(self, other: Block) -> Block:
        return Block(self.candidate.plus(other.candidate), self.stable.plus(other.stable))
