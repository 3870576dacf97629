"""An event loop whose clock jumps to the next timer as soon as nothing else is left to do: hours pass in milliseconds.

For code that does no input or output of its own. `run(main())` in place of `asyncio.run`.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Never waits: the time that the loop would have waited is over at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


class WarpLoop(asyncio.SelectorEventLoop):
    """For code that does real input and output: the clock runs as it does, and is put ahead by hand."""

    _ahead = 0.0

    def time(self) -> float:
        return super().time() + self._ahead

    def warp(self, seconds: float) -> None:
        """Timers that would end within `seconds` end now. Time-outs of requests in flight are among them."""
        self._ahead += seconds


def run(main: Coroutine[Any, Any, T]) -> T:
    """Raises RuntimeError when nothing is left that could ever go on."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
