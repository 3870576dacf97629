"""Replace: old pods make room for new ones, never holding more than the budget at a time.

Nothing is remembered between passes: the next step follows from what the pods hold now. A new pod is asked for only
when the old one has really gone, not when it was told to: its GPU's memory is in use until then, and a quota counts it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hold:
    """In pods."""

    replicas: int
    budget: int
    """Old and new pods together; `replicas`, or more where there is room."""
    old: int
    """Old pods that hold resources, or that are asked for."""
    new: int
    """New pods on nodes."""
    proved: int
    """New pods that serve."""
    cost: int = 1
    """Old pods that must go for one new pod."""


def sizes(hold: Hold) -> tuple[int, int]:
    """(old, new) replicas to ask for.

    One step ahead of what is proved, or as far as there is room. Without room a step takes one old pod first; with
    room nothing goes before its successor serves.
    """
    step = max(1, hold.budget - hold.replicas)
    goal = min(hold.replicas, max(hold.new, hold.proved + step))
    old = max(0, min(hold.replicas, hold.budget - goal * hold.cost))
    if hold.proved >= hold.replicas:
        old = 0
    room = hold.replicas if hold.old == 0 else max(0, hold.budget - max(hold.old, old)) // hold.cost
    return old, min(goal, max(hold.new, room))
