"""The real `modelpier-server` as a process, on ports of its own; ended with the test."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from modelpier_server import contract
from modelpier_server.contract import Plan, PlannedModel, Report

KEY = bytes(range(32))
PUBLIC = base64.b64encode(Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw()).decode()
OWNER = "5a0f7f0e-owner"
POD_SET = "digits-set"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.02)


@dataclass
class ServerProcess:
    process: subprocess.Popen[bytes]
    port: int
    admin: int
    log: Path
    grpc: int

    def call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, port: int = 0
    ) -> tuple[int, bytes]:
        """(status, body); status 0 when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    @property
    def ready(self) -> bool:
        return self.call("GET", contract.READY_PATH)[0] == 200

    def wait_ready(self) -> None:
        wait_for(lambda: self.ready or self.process.poll() is not None)
        assert self.process.poll() is None, self.output

    def push(self, plan: Plan, key: bytes = KEY) -> tuple[int, bytes]:
        raw = plan.encode()
        headers = {contract.SIGNATURE_HEADER: contract.sign(raw, key)}
        return self.call("PUT", contract.PLAN_PATH, raw, headers, self.admin)

    def report(self, after: int = -1, wait: float = 0) -> Report:
        return Report.decode(self.call("GET", f"{contract.STATE_PATH}?after={after}&wait={wait}", port=self.admin)[1])

    def until(self, condition: Callable[[Report], object], seconds: float = 30.0) -> Report:
        """Waits by long polls, as the operator does."""
        end, report = time.monotonic() + seconds, self.report()
        while not condition(report):
            assert time.monotonic() < end, report
            report = self.report(report.serial, 1.0)
        return report

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 30.0) -> int:
        return self.process.wait(seconds)

    @property
    def output(self) -> str:
        return self.log.read_text()


@contextmanager
def server(
    folder: Path, *flags: str, environment: Mapping[str, str] | None = None, grpc: bool = False
) -> Iterator[ServerProcess]:
    """`folder` takes the log and the model cache. With a plan it listens for gRPC in any case."""
    port, admin, grpc_port = free_port(), free_port(), free_port()
    planned = contract.ENV_PLAN_FILE in (environment or {})
    command = [sys.executable, "-m", "modelpier_server", "--http-port", str(port), *flags]
    if planned or grpc:
        command += ["--grpc-port", str(grpc_port)]
    if planned:
        command += ["--host", "127.0.0.1", "--admin-port", str(admin)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "HF_", "MODELPIER_"))}
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**clean, contract.ENV_MODEL_DIR: str(folder / "models"), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield ServerProcess(process, port, admin, log, grpc_port)
    finally:
        process.kill()
        process.wait(10)


class PlanVolume:
    """The plan's ConfigMap as a kubelet mounts it: links into a folder that is switched as a whole."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.count = 0

    @property
    def environment(self) -> dict[str, str]:
        return {
            contract.ENV_PLAN_FILE: str(self.root / contract.PLAN_KEY),
            contract.ENV_PLAN_PUBLIC_KEY: PUBLIC,
            contract.ENV_OWNER_UID: OWNER,
            contract.ENV_POD_SET: POD_SET,
            contract.ENV_TERMINATION_LOG: str(self.root / "termination-log"),
            contract.ENV_PVC_DIR: str(self.root / "pvc"),
            contract.ENV_CREDENTIALS_DIR: str(self.root / "credentials"),
        }

    def write(self, plan: Plan) -> None:
        self.count += 1
        folder = self.root / f"..{self.count}"
        folder.mkdir(parents=True)
        raw = plan.encode()
        (folder / contract.PLAN_KEY).write_bytes(raw)
        (folder / contract.SIGNATURE_KEY).write_text(contract.sign(raw, KEY))
        new = self.root / "..data_tmp"
        new.symlink_to(folder.name)
        new.rename(self.root / "..data")
        for name in (contract.PLAN_KEY, contract.SIGNATURE_KEY):
            if not (self.root / name).is_symlink():
                (self.root / name).symlink_to(f"..data/{name}")


def plan(generation: int, *models: PlannedModel) -> Plan:
    return Plan(OWNER, generation, models, POD_SET)


def infer_body(rows: int = 1, width: int = 3) -> bytes:
    """For a model with one FP32 input `x`."""
    data = [float(i) for i in range(rows * width)]
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, width], "data": data}
    return json.dumps({"inputs": [tensor]}).encode()
