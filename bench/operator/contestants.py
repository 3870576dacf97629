"""The two programs that are compared: how each is started, and how one knows that it leads and waits for work."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.operator import kinds

STOP_SECONDS = 20.0
AS_IN_ITS_IMAGE = """
import sys
sys.modules["kubernetes"] = None
from modelpier_operator.__main__ import main
sys.exit(main())
"""
"""kopf imports the official client, tens of megabytes, where it finds it: tests need it, the image lacks it."""
KEY_BYTES = 32
"""Of an Ed25519 private key."""


@dataclass(frozen=True)
class Contestant:
    """`command` and `environment` (on top of ours) start it; KUBECONFIG is added."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def operator(http_port: int) -> Contestant:
    """This repository's operator as in its image. `http_port`: a free port for its probes and metrics."""
    return Contestant(
        "operator",
        (sys.executable, "-c", AS_IN_ITS_IMAGE),
        {
            "MODELPIER_SERVER_IMAGE": kinds.IMAGE,
            "MODELPIER_NAMESPACE": kinds.OPERATOR_NAMESPACE,
            "MODELPIER_LEASE_NAME": kinds.LEASE,
            "MODELPIER_HTTP_PORT": str(http_port),
        },
    )


def go_controller(program: Path, key: Path) -> Contestant:
    """The controller-runtime controller of the same job. `key`: where the key is kept with which it signs plans."""
    if not key.exists():
        key.write_bytes(secrets.token_bytes(KEY_BYTES))
    return Contestant(
        "go",
        (
            *(str(program), "--namespace", kinds.OPERATOR_NAMESPACE, "--image", kinds.IMAGE),
            *("--key-file", str(key), "--workers", "10"),
        ),
    )


class RunningContestant:
    """A started contestant; its output goes to `log`."""

    def __init__(self, contestant: Contestant, kubeconfig: Path, log: Path) -> None:
        self.name = contestant.name
        self.started = time.monotonic()
        self.log = log
        environment = {**os.environ, **contestant.environment, "KUBECONFIG": str(kubeconfig)}
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                contestant.command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raises RuntimeError, with the end of its log, when it has ended."""
        if (code := self._process.poll()) is not None:
            raise RuntimeError(f"{self.name} ended with status {code}:\n{self.tail()}")

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 20 s."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
