"""How much more latencies of one time agree with each other than independent ones would.

Requests that share a moment share a queue, a cache and a garbage collection: sixteen of them say less than sixteen. The
factor by which differences between the two versions scatter more than binomial ones is the dispersion of
quasi-likelihood (Wedderburn 1974; McCullagh, Nelder: Generalized Linear Models, ch. 4.5); evidence is divided by it.
A wealth raised to a power below 1 that was chosen beforehand is still one (Jensen), so this costs no validity. It is
estimated from successive differences (von Neumann 1941), which a candidate that is slower all the time leaves alone.
"""

from __future__ import annotations

from dataclasses import dataclass

DOUBT = 10.0
"""Blocks' worth of the belief that requests are independent."""


@dataclass(frozen=True)
class Dispersion:
    scatter: float = 0.0
    """Sum of squared successive differences in units of their variance."""
    pairs: int = 0
    last: float | None = None

    @property
    def factor(self) -> float:
        return max(1.0, (DOUBT + self.scatter) / (DOUBT + self.pairs))

    def after(self, difference: float, variance: float) -> Dispersion:
        """`difference`: of both versions' shares in a block; `variance`: of it, if requests were independent."""
        if self.last is None:
            return Dispersion(self.scatter, self.pairs, difference)
        step = difference - self.last
        return Dispersion(self.scatter + step * step / (2 * variance), self.pairs + 1, difference)
