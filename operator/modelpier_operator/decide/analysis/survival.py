"""Latency as shares: how many of the stable version's requests took longer than so much.

Buckets are coarse (each bound two to two and a half times the one before), so a quantile cannot be read from them, and
an interpolated one hides in its bucket what is to be found. Shares above bounds are exact. "p99 is at most 1.2 times
the stable version's" becomes, at a bound b near p99, "the share above b is at most the stable version's above b/1.2";
only that last figure is interpolated: between two bounds a share's odds are taken for a power of latency (log-logistic:
near a normal curve in the middle and a power in the tail). Without any slow-down the claim holds whatever that says.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log

from modelpier_operator.decide.analysis.bets import Reference
from modelpier_operator.decide.analysis.samples import Histogram

FIRST = 2.5
"""What lies below the lowest bound is taken to lie above this part of it."""
NEAR = 4.0
"""A bound speaks against a quantile while its share's odds are within this factor of the quantile's: that a twelfth of
all requests are slower is no matter of p99.
"""


@dataclass(frozen=True)
class Past:
    """The stable version's earlier requests, with half a request in doubt so that no share is 0 or 1."""

    seen: Histogram

    def share(self, index: int) -> float:
        return (self.seen.above(index) + 0.5) / (self.seen.total + 1.0)

    def bounds(self, quantile: float) -> Iterator[tuple[int, bool]]:
        """Indices of the bounds below and above the quantile, and whether each is near enough to speak against it."""
        tail = 1 - quantile
        count = len(self.seen.bounds)
        upper = next((i for i in range(count) if self.share(i) <= tail), count - 1)
        pair = (max(0, upper - 1), upper)
        far = [abs(_log_odds(self.share(i)) - _log_odds(tail)) for i in pair]
        nearest = min(far)
        for index, distance in zip(pair, far, strict=True):
            yield index, distance <= log(NEAR) or distance == nearest

    def reference(self, index: int, ratio: float, now: Histogram) -> Reference:
        """For claims that compare the candidate's share above that bound with the stable one's above bound/ratio."""
        bounds = self.seen.bounds
        place = bounds[index] / ratio
        bucket = bisect_left(bounds, place)
        low, high = self.share(bucket - 1), self.share(bucket)
        weight = _inside(low, high, _depth(bounds, bucket, place))
        bad = now.above(bucket)
        return Reference(
            of=now.total,
            bad=bad,
            part=now.above(bucket - 1) - bad,
            weight=weight,
            expected=high + weight * (low - high),
        )


def _depth(bounds: tuple[float, ...], bucket: int, place: float) -> float:
    """How far below its bucket's upper bound a latency lies: 0 at that bound, 1 at the lower one."""
    lower = bounds[bucket - 1] if bucket else bounds[bucket] / FIRST
    return min(1.0, log(bounds[bucket] / place) / log(bounds[bucket] / lower))


def _inside(low: float, high: float, depth: float) -> float:
    """The part of a bucket's requests that took longer than the latency at that depth."""
    if low <= high:
        return depth
    odds = _log_odds(high) + depth * (_log_odds(low) - _log_odds(high))
    return max(0.0, (1 / (1 + exp(-odds)) - high) / (low - high))


def _log_odds(share: float) -> float:
    return log(share / (1 - share))
