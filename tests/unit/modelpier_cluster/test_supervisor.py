"""The supervisor with real (small) processes. Everything waits for a condition, never for luck."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from modelpier_cluster.guarded import GuardedProcesses, PortTakenError, find_detached, free_ports, stop_detached
from modelpier_cluster.processes import ended, find, parent_of
from modelpier_cluster.progress import wait_for
from modelpier_cluster.supervisor import Process


def sleepers(folder: Path) -> list[int]:
    return find([str(folder / "marker")])


def sleeper(folder: Path) -> Process:
    """A process that is found by the last argument of its command line, and starts no other: between fork and exec that
    would look the same."""
    (folder / "marker").touch()
    return Process(("tail", "-f", str(folder / "marker")))


class Guard(Protocol):
    def __call__(self, processes: dict[str, Process], *, detached: bool = False) -> GuardedProcesses: ...


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guard]:
    made: list[GuardedProcesses] = []

    def make(processes: dict[str, Process], *, detached: bool = False) -> GuardedProcesses:
        made.append(GuardedProcesses(tmp_path, processes, detached=detached))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()


def running(folder: Path, count: int = 1) -> None:
    wait_for(f"{count} processes", lambda: len(sleepers(folder)) == count, 20)


def test_what_dies_is_started_again(tmp_path: Path, guarded: Guard) -> None:
    guarded({"a": sleeper(tmp_path)})
    running(tmp_path)
    (first,) = sleepers(tmp_path)
    os.kill(first, signal.SIGKILL)
    wait_for("a new process", lambda: bool(sleepers(tmp_path)) and first not in sleepers(tmp_path), 20)


def test_a_component_that_exits_while_starting_is_reported_with_its_last_words(guarded: Guard) -> None:
    processes = guarded({"a": Process(("/bin/sh", "-c", "echo port is taken; exit 3"))})
    with pytest.raises(PortTakenError, match="a exited: port is taken"):
        processes.wait_for("a", lambda: False, 20)


def test_stopping_ends_every_process(tmp_path: Path, guarded: Guard) -> None:
    processes = guarded({"a": sleeper(tmp_path), "b": sleeper(tmp_path)})
    running(tmp_path, 2)
    processes.stop()
    assert sleepers(tmp_path) == []


def test_one_process_can_be_stopped_and_started(tmp_path: Path, guarded: Guard) -> None:
    processes = guarded({"a": sleeper(tmp_path)})
    running(tmp_path)
    processes.stop_one("a")
    assert sleepers(tmp_path) == []
    processes.start_one("a")
    running(tmp_path)


def test_gated_processes_wait(tmp_path: Path, guarded: Guard) -> None:
    """The gate is an API server's readiness; without one it never opens."""
    guarded({"open": sleeper(tmp_path), "gated": Process(sleeper(tmp_path).argv, gated=True)})
    running(tmp_path, 1)


def test_children_die_with_a_killed_supervisor(tmp_path: Path, guarded: Guard) -> None:
    guarded({"a": sleeper(tmp_path)})
    running(tmp_path)
    supervisor = parent_of(sleepers(tmp_path)[0])
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    running(tmp_path, 0)


def test_everything_dies_with_a_killed_owner(tmp_path: Path) -> None:
    """As when pytest itself is killed: nothing may stay behind."""
    program = f"""
import sys, time
sys.path[:0] = {[str(Path(sys.modules["modelpier_cluster"].__file__ or "").parent.parent)]!r}
from pathlib import Path
from typing import Protocol
from modelpier_cluster.guarded import GuardedProcesses
from modelpier_cluster.supervisor import Process
GuardedProcesses(Path({str(tmp_path)!r}), {{"a": Process({sleeper(tmp_path).argv!r})}}).start()
time.sleep(1000)
"""
    owner = subprocess.Popen([sys.executable, "-c", program])
    try:
        running(tmp_path)
    finally:
        owner.kill()
        owner.wait()
    running(tmp_path, 0)


def test_detached_processes_live_on_until_they_are_stopped(tmp_path: Path, guarded: Guard) -> None:
    guarded({"a": sleeper(tmp_path)}, detached=True)
    running(tmp_path)
    assert len(find_detached(tmp_path)) == 1
    stop_detached(tmp_path)
    assert sleepers(tmp_path) == []


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20


def test_processes_are_found_by_the_end_of_their_command_line(tmp_path: Path) -> None:
    argv = [*sleeper(tmp_path).argv]
    process = subprocess.Popen(argv)
    try:
        wait_for("the process", lambda: find([argv[-1]], "tail") == [process.pid], 10)
        assert find([argv[-1]], "unshare") == []
        assert parent_of(process.pid) == os.getpid()
        assert not ended(process.pid)
    finally:
        process.kill()
        process.wait()
    assert find([argv[-1]]) == []
    assert parent_of(process.pid) is None
    assert ended(process.pid)
