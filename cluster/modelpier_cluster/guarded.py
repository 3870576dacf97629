"""Starts a supervisor for processes on loopback ports and talks to it. Used by loopback.py and object_store.py.

Free ports are found by asking the kernel, so another process may take one before ours listens: a component that exits
while it is being waited for raises PortTakenError, and the caller tries again with other ports.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from modelpier_cluster.build import SOURCES
from modelpier_cluster.commands import search_path
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.processes import find
from modelpier_cluster.progress import wait_for
from modelpier_cluster.supervisor import Process, write_plan

ENTRY = str(SOURCES / "cluster.py")
STOP_SECONDS = 20.0


class PortTakenError(ClusterError):
    """A component exited while it started, most likely because its port was taken in between."""


def free_ports(count: int) -> list[int]:
    """`count` different ports of 127.0.0.1 on which nothing listens now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class GuardedProcesses:
    """Processes that end with this Python process, or, `detached`, when stop_detached() is called for their folder."""

    def __init__(self, folder: Path, processes: Mapping[str, Process], *, detached: bool = False) -> None:
        self._folder = folder
        self._detached = detached
        self._events = folder / "log" / "events"
        self._supervisor: subprocess.Popen[bytes] | None = None
        program = Path(next(iter(processes.values())).argv[0])
        write_plan(folder, processes, search_path(str(program.parent)))

    def start(self) -> None:
        self._events.unlink(missing_ok=True)
        (self._folder / "log").mkdir(parents=True, exist_ok=True)
        verb = "_supervise-detached" if self._detached else "_supervise"
        with (self._folder / "log" / "supervisor.log").open("ab") as log:
            self._supervisor = subprocess.Popen(
                [sys.executable, ENTRY, verb, str(self._folder)],
                stdin=subprocess.DEVNULL if self._detached else subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_for(self, what: str, done: Callable[[], bool], seconds: float) -> None:
        """Wait until done(); raises PortTakenError as soon as a process exits, ClusterError after `seconds`."""

        def done_or_failed() -> bool:
            self._check()
            return done()

        wait_for(what, done_or_failed, seconds, f"See {self._folder}/log")

    def _check(self) -> None:
        if self._supervisor and self._supervisor.poll() is not None:
            raise ClusterError(f"the supervisor failed: {_tail(self._folder / 'log' / 'supervisor.log')}")
        for event, name, _ in self._read_events():
            if event == "exited":
                raise PortTakenError(f"{name} exited: {_tail(self._folder / 'log' / f'{name}.log')}")

    def _read_events(self) -> list[tuple[str, str, str]]:
        if not self._events.exists():
            return []
        lines = (line.split() for line in self._events.read_text().splitlines())
        return [(line[0], line[1], line[2]) for line in lines]

    def stop_one(self, name: str) -> None:
        before = self._count("stopped", name)
        self._tell(f"stop {name}\n")
        wait_for(f"the end of {name}", lambda: self._count("stopped", name) > before, STOP_SECONDS)

    def start_one(self, name: str) -> None:
        before = self._count("started", name)
        self._tell(f"start {name}\n")
        wait_for(f"the start of {name}", lambda: self._count("started", name) > before, STOP_SECONDS)

    def _count(self, event: str, name: str) -> int:
        return sum(line[:2] == (event, name) for line in self._read_events())

    def _tell(self, line: str) -> None:
        if not self._supervisor or not self._supervisor.stdin:
            raise ClusterError("only processes that belong to this one can be stopped and started singly")
        self._supervisor.stdin.write(line.encode())
        self._supervisor.stdin.flush()

    def stop(self) -> None:
        """Kill all and wait until they are gone."""
        if self._detached:
            stop_detached(self._folder)
        if self._supervisor:
            if self._supervisor.stdin:
                self._supervisor.stdin.close()
            try:
                self._supervisor.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._supervisor.kill()
                self._supervisor.wait()


def find_detached(folder: Path) -> list[int]:
    return find(["_supervise-detached", str(folder)])


def stop_detached(folder: Path) -> None:
    """End the detached supervisor of `folder` with all its processes, if there is one."""
    for pid in find_detached(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    wait_for(f"the end of the processes of {folder}", lambda: not find_detached(folder), STOP_SECONDS)


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return " | ".join(lines[-3:])[-600:] or "(it wrote nothing)"
