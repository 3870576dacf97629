"""One retry policy for everything that goes over a network: a limit, exponential growth, full jitter.

Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ ("full jitter").
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from modelpier_server.contract import FailureReason
from modelpier_server.errors import ModelError

T = TypeVar("T")


class Transient(Exception):  # noqa: N818 - a state of the network rather than an error of anyone
    """The same call may succeed a moment later; the text is fit for users."""


class Stopped(Exception):  # noqa: N818 - as asked by the caller
    """The caller no longer wants the result."""


@dataclass(frozen=True)
class Retry:
    attempts: int = 5
    base: float = 0.2
    """Seconds: the longest first pause."""
    cap: float = 8.0
    """Seconds: the longest pause."""

    def pause(self, failed: int) -> float:
        """Seconds to wait after so many failures (1 for the first)."""
        return random.uniform(0, min(self.cap, self.base * 2 ** (failed - 1)))  # noqa: S311 - spreads load, guards nothing

    def call(self, action: Callable[[], T], stop: threading.Event) -> T:
        """The result of `action`, tried again on Transient.

        Raises ModelError(DOWNLOAD_FAILED) with the last cause, or Stopped once `stop` is set.
        """
        for failed in range(1, self.attempts + 1):
            if stop.is_set():
                raise Stopped
            try:
                return action()
            except Transient as error:
                last = error
            if failed < self.attempts:
                stop.wait(self.pause(failed))
        raise ModelError(FailureReason.DOWNLOAD_FAILED, f"{last}; given up after {self.attempts} tries") from last
