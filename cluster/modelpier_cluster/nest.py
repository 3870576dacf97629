"""Nests of namespaces: a process and all below it, with network, mounts, process ids and host name of their own.

Killing that process makes the kernel remove all of it: processes, mounts, links, routes, packet filter rules. The
control plane is one nest on the machine, every node one nest inside the control plane's.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpier_cluster.build import SOURCES
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.processes import ended, find, parent_of
from modelpier_cluster.progress import wait_for

ENTRY = str(SOURCES / "cluster.py")
UNSHARE = (
    *("unshare", "--net", "--pid", "--mount", "--uts", "--ipc"),
    *("--fork", "--kill-child", "--mount-proc", "--propagation", "private"),
)


@dataclass(frozen=True)
class Nest:
    """A nest, named by the arguments of the driver that runs as its PID 1. The name is all that is ever stored."""

    arguments: tuple[str, ...]

    def outer(self) -> int | None:
        """The process outside to kill; None when the nest does not exist."""
        candidates = find(self.arguments, "unshare")
        # Between fork and exec the child looks like its parent: the parent is meant.
        outermost = [pid for pid in candidates if parent_of(pid) not in candidates]
        return outermost[0] if outermost else None

    def inner(self) -> int | None:
        """The nest's PID 1 as seen from here."""
        outer = self.outer()
        children = [pid for pid in find(self.arguments) if parent_of(pid) == outer]
        return children[0] if outer and children else None

    def start(self, log: Path, prefix: Sequence[str] = ()) -> int:
        """Start it (detached from this session) and wait for its namespaces; returns the outer process."""
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [*prefix, *UNSHARE, sys.executable, ENTRY, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        mine = Path("/proc/self/ns/net").readlink()

        def separated() -> bool:
            if process.poll() is not None:
                raise ClusterError(f"{self.arguments[0]} ended at once: {log.read_text(errors='replace')[-800:]}")
            return Path(f"/proc/{process.pid}/ns/net").readlink() != mine and self.inner() is not None

        wait_for("namespaces", separated, 20)
        return process.pid

    def enter(self) -> list[str]:
        """The beginning of a command line that runs the rest inside; raises ClusterError when there is no nest."""
        inner = self.inner()
        if inner is None:
            raise ClusterError(f"not running: {' '.join(self.arguments)}")
        return ["nsenter", "--target", str(inner), "--net", "--pid", "--mount", "--uts", "--ipc", "--"]

    def kill(self) -> None:
        """Kill it, and wait until the kernel has removed all its processes."""
        pids = find(self.arguments)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for("the end of the nest", lambda: not find(self.arguments) and all(map(ended, pids)), 30)


def control_plane_nest(folder: Path) -> Nest:
    return Nest(("_control-plane", str(folder)))


def node_nest(folder: Path, node: str) -> Nest:
    return Nest(("_node", str(folder), node))
