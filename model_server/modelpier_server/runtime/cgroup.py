"""Where the limits of this process's container are written. `cpu` and `memory` read them at start-up.

Sources: Linux `cgroup-v2.rst`, `cgroups(7)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def folders(controller: str, root: Path, membership: Path) -> Iterator[Path]:
    """The process's cgroup and all above it, of version 2 and of `controller` in version 1; `root` itself too, which is
    all that a container sees of its own.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            base = root if not controllers else root / controllers
            folder = base / path.lstrip("/")
            yield from (f for f in (folder, *folder.parents) if f.is_relative_to(base))
    yield from (root, root / controller)
