"""Finds running processes by their command line: the kernel's own truth, which no crash can make stale."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path


def find(ending: Sequence[str], program: str = "") -> list[int]:
    """Process ids whose command line ends with `ending` and begins with a program named `program` (any, if empty).

    Zombies have no command line and are never found.
    """
    return [pid for pid, argv in _command_lines() if _matches(argv, ending, program)]


def _matches(argv: Sequence[str], ending: Sequence[str], program: str) -> bool:
    if list(argv[-len(ending) :]) != list(ending):
        return False
    name = Path(argv[0]).name
    return not program or name == program


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    for entry in os.listdir("/proc"):  # noqa: PTH208 -- Path objects for every process cost milliseconds
        if entry.isdigit():
            try:
                raw = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            if raw:
                yield int(entry), raw.rstrip(b"\0").decode(errors="replace").split("\0")


def parent_of(pid: int) -> int | None:
    """The parent's process id (0 for one outside this pid namespace); None when there is no such process."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def ended(pid: int) -> bool:
    """Whether the process is over. The first of a pid namespace is over only when all others in it are."""
    fields = _stat(pid)
    return not fields or fields[0] in "ZX"


def _stat(pid: int) -> list[str]:
    """proc(5): state, parent and so on; empty when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    # The second field is the program's name in parentheses, which may itself hold blanks and parentheses.
    return stat.rpartition(")")[2].split()
