"""How much memory this process may really use (containers see all of the host's), and what it gives back.

`process` derives from it what the bodies of requests may take, `lifecycle` whether a model fits beside others.
Sources: Linux `cgroup-v2.rst` (memory.max, memory.current, memory.stat), `cgroup-v1/memory.rst`
(memory.limit_in_bytes, memory.usage_in_bytes).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

from modelpier_server.runtime import cgroup

_FILES = ("memory.max", "memory.limit_in_bytes")
_USED = ("memory.current", "memory.usage_in_bytes")
_CACHE = frozenset({"active_file", "inactive_file"})
"""Of memory.stat: the kernel gives these up before it ends anybody. Version 1 has those of a whole tree as `total_`."""
_UNLIMITED = 1 << 60
"""Version 1 has no word for it, but the largest number of whole pages."""
FOR_RUNS = 32 << 20
"""Bytes; what small models took for their session and their first runs, with room to spare."""
MOST_FOR_BODIES = 1 << 30
SHARE_OF_BODIES = 4
"""A body lives beside its decoded tensors, the model and its runs."""


def limit(root: Path = cgroup.ROOT, membership: Path = cgroup.MEMBERSHIP) -> int | None:
    """Bytes: the tightest limit of this process's cgroup and its parents; None without any."""
    found = [size for folder in cgroup.folders("memory", root, membership) if (size := _limit(folder)) is not None]
    return min(found, default=None)


@dataclass(frozen=True)
class Room:
    """Bytes."""

    left: int
    limit: int


def room(root: Path = cgroup.ROOT, membership: Path = cgroup.MEMBERSHIP) -> Room | None:
    """Where there is least of it, in this process's cgroup and its parents; None without any limit."""
    found = []
    for folder in cgroup.folders("memory", root, membership):
        size, used = _limit(folder), _used(folder)
        if size is not None and used is not None:
            found.append(Room(max(0, size - used), size))
    return min(found, key=lambda one: one.left, default=None)


def of_load(size_bytes: int) -> int:
    """Bytes that it takes to load a model of that size and to run it: ONNX Runtime holds the file and the weights that
    it makes of it side by side. Peaks were 137 MiB for 64 (one large MatMul), 139 for 85, 190 for 100 and 49 for 13.
    """
    return size_bytes * 9 // 4 + FOR_RUNS


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


def _used(folder: Path) -> int | None:
    """Without the pages of files that can be read again."""
    for name in _USED:
        try:
            used = int((folder / name).read_text())
            lines = (folder / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        stat = dict(line.split(" ", 1) for line in lines if " " in line)
        prefix = "total_" if name == _USED[1] else ""
        return used - sum(int(stat.get(prefix + part, 0)) for part in _CACHE)
    return None
