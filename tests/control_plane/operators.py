"""Real operator processes against the loopback control plane: started, stopped, killed, frozen."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from modelpier_cluster.guarded import free_ports
from support.control_plane import OPERATOR_NAMESPACE, wait_until
from support.real_api import ApiServer

Object = dict[str, Any]
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases/modelpier-operator"
READY = 60.0


class OperatorProcess:
    """`modelpier-operator` with a kubeconfig. `environment` overrides its settings."""

    def __init__(self, kubeconfig: Path, environment: Mapping[str, str] | None = None) -> None:
        [self.port] = free_ports(1)
        self._log = tempfile.NamedTemporaryFile(prefix="modelpier-operator-", suffix=".log")  # noqa: SIM115 - closed by stop
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "MODELPIER"))},
            "KUBECONFIG": str(kubeconfig),
            "MODELPIER_NAMESPACE": OPERATOR_NAMESPACE,
            "MODELPIER_SERVER_IMAGE": "registry.example/server:1",
            "MODELPIER_HTTP_PORT": str(self.port),
            **(environment or {}),
        }
        command = [sys.executable, "-m", "modelpier_operator"]
        self.process = subprocess.Popen(command, env=env, stdout=self._log, stderr=self._log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(10)
        self._log.close()

    def log(self) -> str:
        return Path(self._log.name).read_text()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ask(self, path: str) -> str:
        """The answer of its own HTTP server; empty when there is none."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with contextlib.suppress(OSError), opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
            return str(answer.read().decode())
        return ""

    def metric(self, name: str) -> float:
        lines = (line.rsplit(" ", 1) for line in self.ask("/metrics").splitlines() if line.startswith(name))
        return sum(float(value) for _, value in lines)

    def wait_ready(self) -> Self:
        wait_until(f"the operator is ready:\n{self.log()[-3000:]}", lambda: self.ask("/readyz") == "ok", READY)
        return self

    def wait_leading(self, seconds: float = READY) -> Self:
        wait_until("the operator leads", lambda: self.metric("modelpier_operator_leader") == 1, seconds)
        return self

    def wait_idle(self) -> Self:
        """Nothing waits, and the number of passes has stopped growing."""
        seen: list[float] = []

        def quiet() -> bool:
            seen.append(self.metric("modelpier_operator_reconciles_total"))
            return self.metric("modelpier_operator_queue_depth") == 0 and len(seen) > 6 and len(set(seen[-6:])) == 1

        wait_until("the operator is idle", quiet)
        return self


def holder(server: ApiServer) -> str:
    with contextlib.suppress(Exception):
        return str(server.call("GET", LEASE)["spec"].get("holderIdentity") or "")
    return ""


def model_deployment(name: str, namespace: str, *, replicas: int = 1, uri: str = "s3://models/m/model.onnx") -> Object:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"model": {"uri": uri}, "replicas": replicas}}


def observed(server: ApiServer, name: str, namespace: str) -> bool:
    live = server.get("modeldeployments", namespace, name)
    return live is not None and live.get("status", {}).get("observedGeneration") == live["metadata"]["generation"]


def audit_lines(path: Path, offset: int = 0) -> Iterator[Object]:
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)
