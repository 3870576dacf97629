"""Follows the mounted plan. Polled, once a second: a ConfigMap volume is switched by renaming a symbolic link, which
inotify shows only to those who also watch the link's folder, and network file systems not at all; a stat costs a few
microseconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from modelpier_server.contract import SIGNATURE_KEY
from modelpier_server.lifecycle.plans import LARGEST, PlanRefused

INTERVAL = 1.0
log = logging.getLogger(__name__)

Fingerprint = tuple[tuple[str, int, int, int], ...]


async def watch(
    file: Path, offer: Callable[[bytes, str], None], refuse: Callable[[str], None], interval: float = INTERVAL
) -> None:
    """Offers plan and signature whenever either changes, until cancelled."""
    seen: Fingerprint | None = None
    while True:
        try:
            found = _fingerprint(file)
            if found != seen:
                raw, signature = _read(file)
                seen = found
                offer(raw, signature)
        except PlanRefused as error:
            log.info("mounted plan not taken", extra={"error": str(error)})
        except OSError as error:
            # Also what a switch of the volume between two calls looks like; the next look is a second away.
            if seen is None:
                refuse(f"plan: {file} cannot be read: {error.strerror}")
        await asyncio.sleep(interval)


def _read(file: Path) -> tuple[bytes, str]:
    """Both from the same real folder: a ConfigMap volume never changes one, it makes a new one."""
    real = file.resolve(strict=True)
    with real.open("rb") as plan, (real.parent / SIGNATURE_KEY).open("rb") as signature:
        return plan.read(LARGEST + 1), signature.read(4096).decode("ascii", "replace").strip()


def _fingerprint(file: Path) -> Fingerprint:
    real = file.resolve(strict=True)
    about = [(str(path), path.stat()) for path in (real, real.parent / SIGNATURE_KEY)]
    return tuple((path, s.st_ino, s.st_mtime_ns, s.st_size) for path, s in about)
