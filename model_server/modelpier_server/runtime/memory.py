"""How much memory this process may really use (containers see all of the host's), and what it gives back.

`process` derives from it what the bodies of requests may take. Sources: Linux `cgroup-v2.rst` (memory.max),
`cgroup-v1/memory.rst` (memory.limit_in_bytes).
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from modelpier_server.runtime import cgroup

_FILES = ("memory.max", "memory.limit_in_bytes")
_UNLIMITED = 1 << 60
"""Version 1 has no word for it, but the largest number of whole pages."""
MOST_FOR_BODIES = 1 << 30
SHARE_OF_BODIES = 4
"""A body lives beside its decoded tensors, the model and its runs."""


def limit(root: Path = cgroup.ROOT, membership: Path = cgroup.MEMBERSHIP) -> int | None:
    """Bytes: the tightest limit of this process's cgroup and its parents; None without any."""
    found = [size for folder in cgroup.folders("memory", root, membership) if (size := _limit(folder)) is not None]
    return min(found, default=None)


def for_bodies(limit: int | None) -> int:
    """Bytes that the bodies of all requests together may take."""
    return MOST_FOR_BODIES if limit is None else min(MOST_FOR_BODIES, limit // SHARE_OF_BODIES)


def give_back() -> None:
    """Blocking, for some milliseconds: what was freed goes back to the system. glibc keeps it otherwise: of a model of
    100 MB most stayed with the process after its unload.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and keeps little
    if trim is not None:
        trim(0)


def _limit(folder: Path) -> int | None:
    for name in _FILES:
        try:
            text = (folder / name).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() and int(text) < _UNLIMITED else None
    return None
