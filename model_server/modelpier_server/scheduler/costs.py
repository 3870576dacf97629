"""Run times by size class (power of two of input elements), and what they say of sizes that were never run."""

from __future__ import annotations

from collections.abc import Mapping


def estimate(costs: Mapping[int, float], size: int, growth: float) -> float:
    """Of the class itself; else of the next larger one, which bounds it; else of the next smaller one, times `growth`
    per class. Infinity when nothing is known.
    """
    if (known := costs.get(size)) is not None:
        return known
    if larger := [known for known in costs if known > size]:
        return costs[min(larger)]
    if smaller := [known for known in costs if known < size]:
        nearest = max(smaller)
        return costs[nearest] * growth ** (size - nearest)
    return float("inf")
