"""How many cores this process may really use: containers see all of the host's.

Used for the defaults of instances and threads. Sources: Linux `cgroup-v2.rst` (cpu.max), `sched-bwc.rst`
(cpu.cfs_quota_us).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def cores(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """At least 1: the smaller of the affinity mask and the tightest CPU quota of this process's cgroup and its
    parents.
    """
    limits = [quota for folder in _folders(root, membership) if (quota := _quota(folder)) is not None]
    return max(1, min(_affinity(), *(math.ceil(limit) for limit in limits), _affinity()))


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def _folders(root: Path, membership: Path) -> Iterator[Path]:
    """The process's cgroup and all above it; `root` itself too, which is all that a container sees of its own."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            base = root if not controllers else root / controllers
            folder = base / path.lstrip("/")
            yield from (f for f in (folder, *folder.parents) if f.is_relative_to(base))
    yield from (root, root / "cpu", root / "cpu,cpuacct")


def _quota(folder: Path) -> float | None:
    """Cores that one cgroup may use; None without a limit."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or not int(period):  # "max", or -1
        return None
    return int(quota) / int(period)
