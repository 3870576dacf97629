"""Certificates and keys that change while the server runs: their files are looked at once a second.

Polled, as the plan is (see `lifecycle.watch`): a Secret's volume is switched by renaming a symbolic link. `process`
runs `follow`. What cannot be used leaves in force what is held; the log and METRICS_PATH say so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from modelpier_server.settings import SettingsError
from modelpier_server.telemetry import Metrics

INTERVAL = 1.0
"""Seconds between two looks."""

log = logging.getLogger(__name__)

Fingerprint = tuple[tuple[str, int, int, int], ...]


class Source(Protocol):
    """Something made of files."""

    @property
    def what(self) -> str:
        """Its name in the log and in the figures."""

    def files(self) -> Sequence[Path]:
        """Those that are there now. Raises OSError."""

    def take(self) -> None:
        """Reads them all, and is as they say from now on. Raises SettingsError and stays as it was."""


class Watch:
    """Takes a source's files at the start, and later whenever they have changed and lie still."""

    def __init__(self, source: Source, metrics: Metrics) -> None:
        """Raises SettingsError: without a good beginning there is nothing to fall back to."""
        self._source = source
        self._reloads = metrics.reloads
        for result in ("taken", "refused"):
            self._reloads[source.what, result] = 0
        self._tried = self._seen = _fingerprint(source)
        source.take()

    def look(self) -> None:
        found = _fingerprint(self._source)
        settled = found == self._seen
        self._seen = found
        # Files that are no Secret's may be written one after the other: a key before its certificate is no mistake yet.
        if settled and found != self._tried:
            self._tried = found
            self._take()

    def _take(self) -> None:
        what = self._source.what
        try:
            self._source.take()
        except SettingsError as error:
            self._reloads[what, "refused"] += 1
            fields = {"what": what, "error": str(error)}
            log.error("changed files are not taken: what is held stays in force", extra=fields)  # noqa: TRY400 - says all
        else:
            self._reloads[what, "taken"] += 1
            log.info("changed files are taken", extra={"what": what})


async def follow(watches: Iterable[Watch], interval: float = INTERVAL) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(interval)
        for watch in watches:
            watch.look()


def read(path: Path, flag: str, most: int) -> bytes:
    """The whole file. Raises SettingsError, which names the flag."""
    try:
        with path.open("rb") as source:
            content = source.read(most + 1)
    except OSError as error:
        raise SettingsError(f"{flag}: {path} cannot be read: {error.strerror}") from error
    if len(content) > most:
        raise SettingsError(f"{flag}: {path} has more than {most} bytes")
    return content


def _fingerprint(source: Source) -> Fingerprint | None:
    """None where they cannot be looked at; `take` then says why."""
    try:
        about = [(str(real := path.resolve(strict=True)), real.stat()) for path in source.files()]
    except OSError:
        return None
    return tuple((path, s.st_ino, s.st_mtime_ns, s.st_size) for path, s in about)
