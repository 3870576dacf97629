"""Says what is going on and how long it took, and waits for conditions with a deadline. Used by the verbs."""

import sys
import time
from collections.abc import Callable

from modelpier_cluster.errors import ClusterError

POLL_SECONDS = 0.05
ANNOUNCE_AFTER_SECONDS = 3.0
ANNOUNCE_EVERY_SECONDS = 10.0


class Progress:
    """Prints lines that begin with the seconds since it was made, to standard error (results go to standard output)."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.started = time.monotonic()
        self.quiet = quiet

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def say(self, message: str) -> None:
        if not self.quiet:
            print(f"{self.elapsed():6.1f} s  {message}", file=sys.stderr, flush=True)

    def wait(self, what: str, done: Callable[[], bool], seconds: float = 60.0, hint: str = "") -> None:
        """Wait until done() holds; raises ClusterError naming `what` (and `hint`) after `seconds`."""
        begin = time.monotonic()
        announce = begin + ANNOUNCE_AFTER_SECONDS
        while not done():
            now = time.monotonic()
            if now - begin > seconds:
                raise ClusterError(f"still waiting for {what} after {seconds:.0f} s. {hint}".strip())
            if now > announce:
                self.say(f"... waiting for {what}")
                announce = now + ANNOUNCE_EVERY_SECONDS
            time.sleep(POLL_SECONDS)


def wait_for(what: str, done: Callable[[], bool], seconds: float = 60.0, hint: str = "") -> None:
    """As Progress.wait, without a word."""
    Progress(quiet=True).wait(what, done, seconds, hint)
