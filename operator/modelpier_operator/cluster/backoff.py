"""How long to wait before the next try: doubling, capped, with jitter so that many do not come back at once."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """`base` doubles with each failure up to `cap` (seconds); the wait lies between half of that and all of it."""

    base: float = 0.2
    cap: float = 30.0
    failures: int = 0
    rng: random.Random = field(default_factory=random.Random)

    def next(self) -> float:
        whole = min(self.cap, self.base * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return whole * (0.5 + self.rng.random() / 2)

    def reset(self) -> None:
        self.failures = 0
