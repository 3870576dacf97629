"""What processes cost, from /proc: CPU seconds, resident memory, and what the rest of the machine burnt meanwhile.

See proc_pid_stat(5) and proc_stat(5). Used by every benchmark that starts programs.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
MEBI = 1024 * 1024


def parse_stat(text: str) -> tuple[int, float]:
    """(parent's pid, CPU seconds in user and system mode) of a /proc/PID/stat line.

    The program's name stands in parentheses and may hold blanks and parentheses itself.
    """
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS


def parse_machine(text: str) -> float:
    """CPU seconds that all processors spent working (user, nice, system, irq, softirq), from /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq = (int(value) for value in text.splitlines()[0].split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def parse_resident(status: str) -> float:
    """VmRSS of /proc/PID/status in MiB; 0 for a process that has ended."""
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def descendants(root: int, parents: Mapping[int, int], others: Collection[int] = ()) -> set[int]:
    """`root` and all that descends from it, given each pid's parent; `others` and their descendants are left out."""
    found = {root}
    while more := {
        pid for pid, parent in parents.items() if parent in found and pid not in found and pid not in others
    }:
        found |= more
    return found


def tree(root: int) -> set[int]:
    """The process and its living descendants."""
    return descendants(root, {pid: parent for pid, (parent, _) in _all_stats().items()})


def cpu_seconds(root: int) -> float:
    """CPU seconds of the process and its living descendants."""
    stats = _all_stats()
    return _sum(descendants(root, {pid: parent for pid, (parent, _) in stats.items()}), stats)


def resident_mebibytes(root: int) -> float:
    return sum(parse_resident(_read(pid, "status")) for pid in tree(root))


def _all_stats() -> dict[int, tuple[int, float]]:
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {pid: parse_stat(text) for pid in pids if (text := _read(pid, "stat"))}


def _read(pid: int, name: str) -> str:
    """Empty when the process has ended in between."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""


@dataclass(frozen=True)
class Clock:
    """CPU seconds so far: of each process by name, and of the whole machine; `at` in seconds of any clock."""

    at: float
    processes: Mapping[str, float]
    machine: float

    @classmethod
    def now(cls, at: float, pids: Mapping[str, int]) -> Clock:
        stats = _all_stats()
        parents = {pid: parent for pid, (parent, _) in stats.items()}
        roots = set(pids.values())  # some of them descend from others
        spent = {name: _sum(descendants(pid, parents, roots - {pid}), stats) for name, pid in pids.items()}
        return cls(at, spent, parse_machine(Path("/proc/stat").read_text()))


def _sum(pids: Iterable[int], stats: Mapping[int, tuple[int, float]]) -> float:
    return sum(stats[pid][1] for pid in pids if pid in stats)


def spent(begin: Clock, end: Clock) -> dict[str, float]:
    """CPU seconds of each process between two clocks."""
    return {name: end.processes[name] - begin.processes[name] for name in begin.processes}


def foreign_cores(begin: Clock, end: Clock) -> float:
    """How many cores everything else on the machine kept busy between two clocks."""
    ours = sum(spent(begin, end).values())
    return max(0.0, (end.machine - begin.machine - ours) / max(end.at - begin.at, 1e-9))
