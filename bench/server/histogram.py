"""Latencies as counts in buckets: percentiles to within 3 %, of any number of requests, that can be added up. Pure.

As HdrHistogram does: 32 buckets for every power of two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

BITS = 5


def bucket_of(value: int) -> int:
    """Values below 64 have a bucket of their own."""
    shift = max(0, value.bit_length() - BITS - 1)
    return (shift << BITS) + (value >> shift)


def middle_of(bucket: int) -> float:
    """Of the values in a bucket."""
    shift = max(0, (bucket >> BITS) - 1)
    low = (bucket - (shift << BITS)) << shift
    return low + ((1 << shift) - 1) / 2


@dataclass
class Histogram:
    """Of nanoseconds; what it tells is milliseconds."""

    buckets: Counter[int] = field(default_factory=Counter)
    total: int = 0
    largest: int = 0

    @classmethod
    def of(cls, values: Iterable[int]) -> Histogram:
        made = cls()
        for value in values:
            made.buckets[bucket_of(value)] += 1
            made.total += value
            made.largest = max(made.largest, value)
        return made

    @property
    def count(self) -> int:
        return self.buckets.total()

    @property
    def mean(self) -> float:
        return self.total / self.count / 1e6 if self.buckets else 0.0

    @property
    def most(self) -> float:
        return self.largest / 1e6

    def percentile(self, share: float) -> float:
        """By nearest rank; 0 of nothing."""
        left = max(1, -int(-share * self.count // 1))
        for bucket in sorted(self.buckets):
            left -= self.buckets[bucket]
            if left <= 0:
                return min(middle_of(bucket), self.largest) / 1e6
        return 0.0

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.buckets + other.buckets, self.total + other.total, max(self.largest, other.largest))

    def encode(self) -> dict[str, Any]:
        return {"buckets": sorted(self.buckets.items()), "total": self.total, "largest": self.largest}

    @classmethod
    def decode(cls, data: Mapping[str, Any]) -> Histogram:
        return cls(Counter(dict(map(tuple, data["buckets"]))), data["total"], data["largest"])
