"""Keeps a set of processes running and never outlives its purpose: PID 1 of a nest, and the parent of loopback ones.

What dies is restarted with a growing pause. Orphans are reaped. Children are killed by the kernel when the supervisor
dies, however it dies. With a control channel (a pipe from whoever started it), end of file means: kill all and leave.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, HEALTHY_SECONDS = 0.5, 8.0, 30.0
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Process:
    """A command line; a `gated` one waits until the supervisor's gate opens."""

    argv: tuple[str, ...]
    gated: bool = False


@dataclass
class _Life:
    """What is known about one process: the running one, or when to start it."""

    running: subprocess.Popen[bytes] | None = None
    start_at: float | None = 0.0
    started: float = 0.0
    pause: float = FIRST_PAUSE_SECONDS


class Supervisor:
    """Runs `processes`; each writes to logs/NAME.log. Events (started, exited, stopped) go to the file logs/events."""

    def __init__(
        self, processes: Mapping[str, Process], logs: Path, path: str, gate: Callable[[], bool] = lambda: True
    ) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._processes = processes
        self._logs = logs
        self._environment = {**os.environ, "PATH": path}
        self._gate = gate
        self._gate_open = False
        self._lives = {name: _Life() for name in processes}
        self._events = (logs / "events").open("a", buffering=1)

    def run(self, control: int | None = None) -> None:
        """Supervise until the control channel closes (or for ever); kills every child before it returns."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler no wake-up byte is written
        signal.set_wakeup_fd(writer)
        try:
            while True:
                waiting = self._start_due()
                sources = [reader] if control is None else [reader, control]
                ready, _, _ = select.select(sources, [], [], 0.05 if waiting else 5.0)
                if reader in ready:
                    os.read(reader, 4096)
                self._reap()
                if control in ready and not self._obey(os.read(control, 4096) if control is not None else b""):
                    return
        finally:
            self._kill_all()

    def _start_due(self) -> bool:
        """Start what is due; returns whether something still waits for its time or for the gate."""
        waiting = False
        for name, life in self._lives.items():
            if life.running or life.start_at is None:
                continue
            if time.monotonic() < life.start_at or (self._processes[name].gated and not self._opened()):
                waiting = True
            else:
                self._start(name, life)
        return waiting

    def _opened(self) -> bool:
        self._gate_open = self._gate_open or self._gate()
        return self._gate_open

    def _start(self, name: str, life: _Life) -> None:
        parent = os.getpid()

        def die_with_parent() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # the parent was gone before the line above
                os._exit(1)

        with (self._logs / f"{name}.log").open("ab") as log:
            life.running = subprocess.Popen(
                self._processes[name].argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 -- the supervisor has one thread
            )
        life.started = time.monotonic()
        self._note("started", name, life.running.pid)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                self._died(pid, os.waitstatus_to_exitcode(status))

    def _died(self, pid: int, code: int) -> None:
        for name, life in self._lives.items():
            if life.running and life.running.pid == pid:
                life.running.returncode = code  # tells Popen that there is nothing left to wait for
                life.running = None
                lived = time.monotonic() - life.started
                life.pause = (
                    FIRST_PAUSE_SECONDS if lived > HEALTHY_SECONDS else min(life.pause * 2, LONGEST_PAUSE_SECONDS)
                )
                if life.start_at is None:
                    self._note("stopped", name, code)
                else:
                    life.start_at = time.monotonic() + life.pause
                    self._note("exited", name, code)

    def _obey(self, message: bytes) -> bool:
        """Carry out lines of 'stop NAME' and 'start NAME'; returns False at end of file."""
        for line in message.decode().splitlines():
            verb, name = line.split()
            life = self._lives[name]
            life.start_at = None if verb == "stop" else 0.0
            if verb == "stop" and life.running:
                life.running.kill()
        return bool(message)

    def _kill_all(self) -> None:
        for life in self._lives.values():
            if life.running:
                life.running.kill()
        for life in self._lives.values():
            if life.running:
                life.running.wait()

    def _note(self, event: str, name: str, number: int) -> None:
        self._events.write(f"{event} {name} {number}\n")


def write_plan(folder: Path, processes: Mapping[str, Process], path: str) -> None:
    """Leave for a supervisor in a process of its own what it is to run."""
    plan = {"path": path, "processes": {name: asdict(process) for name, process in processes.items()}}
    (folder / "processes.json").write_text(json.dumps(plan))


def supervise_folder(folder: Path, gate: Callable[[], bool], *, lifeline: bool) -> None:
    """Run the plan that lies in `folder`. With `lifeline`, standard input is the control channel."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started us, who then closes the channel
    plan = json.loads((folder / "processes.json").read_text())
    processes = {name: Process(tuple(p["argv"]), p["gated"]) for name, p in plan["processes"].items()}
    Supervisor(processes, folder / "log", plan["path"], gate).run(sys.stdin.fileno() if lifeline else None)
