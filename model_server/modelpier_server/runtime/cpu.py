"""How many cores this process may really use: containers see all of the host's.

Used for the defaults of instances and threads. Sources: Linux `cgroup-v2.rst` (cpu.max), `sched-bwc.rst`
(cpu.cfs_quota_us).
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from modelpier_server.runtime import cgroup


def cores(root: Path = cgroup.ROOT, membership: Path = cgroup.MEMBERSHIP) -> int:
    """At least 1: the smaller of the affinity mask and the tightest CPU quota of this process's cgroup and its
    parents.
    """
    folders = (*cgroup.folders("cpu", root, membership), root / "cpu,cpuacct")
    limits = [quota for folder in folders if (quota := _quota(folder)) is not None]
    return max(1, min(_affinity(), *(math.ceil(limit) for limit in limits), _affinity()))


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


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
