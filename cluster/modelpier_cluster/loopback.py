"""A control plane on 127.0.0.1 for tests: no root, no nodes, several at once. Used by pytest fixtures and by `up`.

    with ControlPlane(controller_manager=True) as control_plane:
        subprocess.run([..., f"--kubeconfig={control_plane.kubeconfig}"])

Everything runs under one supervisor that dies with the Python process that made it.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from modelpier_cluster.api import ApiClient
from modelpier_cluster.build import KUBE, programs
from modelpier_cluster.components import ControlPlanePlan, control_plane_files, control_plane_processes
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.guarded import GuardedProcesses, PortTakenError, free_ports
from modelpier_cluster.paths import write_text
from modelpier_cluster.pki import create_pki, create_users
from modelpier_cluster.progress import wait_for
from modelpier_cluster.spec import Folder, Options

ATTEMPTS = 4
SERVICES = "198.19.0.0/20"
START_SECONDS = 90.0


class ControlPlane:
    """etcd and kube-apiserver on free ports of 127.0.0.1, optionally with controller-manager and scheduler.

    `folder`: where its files go (default: a temporary folder that stop() removes).
    Attributes once started: `url`, `token` (of the administrator), `kubeconfig`, `audit_log` (see audit.py).
    """

    def __init__(
        self,
        *,
        controller_manager: bool = False,
        scheduler: bool = False,
        folder: Path | None = None,
        options: Options | None = None,
        detached: bool = False,
        timeout: float = START_SECONDS,
    ) -> None:
        """`timeout`: seconds that the API server has to become ready."""
        self._controller_manager = controller_manager
        self._scheduler = scheduler
        self._options = options or Options()
        self._temporary = folder is None
        self._detached = detached
        self._timeout = timeout
        self._kube = str(programs([KUBE]) / "kube")
        self.folder = Folder(folder or Path(tempfile.mkdtemp(prefix="modelpier-control-plane-")))
        self._processes: GuardedProcesses | None = None

    @property
    def kubeconfig(self) -> Path:
        return self.folder.kubeconfig()

    @property
    def audit_log(self) -> Path:
        return self.folder.audit_log

    @property
    def url(self) -> str:
        return self.client.url

    @property
    def token(self) -> str:
        return self.client.token

    @property
    def client(self) -> ApiClient:
        return ApiClient.of(self.kubeconfig)

    def start(self) -> Self:
        """Start and wait until the API server is ready; raises ClusterError after 90 s or when a component fails."""
        create_pki(self.folder.pki, ["127.0.0.1", "198.19.0.1"])
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._start_once()
            except PortTakenError as error:
                self._end()
                if attempt == ATTEMPTS:
                    raise ClusterError(f"the control plane did not start in {ATTEMPTS} attempts: {error}") from error
            except BaseException:
                self._end()
                raise
            else:
                return self
        raise AssertionError

    def _start_once(self) -> None:
        port, etcd_port, peer_port = free_ports(3)
        plan = ControlPlanePlan(
            folder=self.folder,
            kube=self._kube,
            address="127.0.0.1",
            port=port,
            etcd_port=etcd_port,
            etcd_peer_port=peer_port,
            services=SERVICES,
            options=self._options,
            loopback=True,
        )
        shutil.rmtree(self.folder.path / "etcd", ignore_errors=True)
        create_users(self.folder, f"https://127.0.0.1:{port}", [])
        for name, content in control_plane_files(plan).items():
            write_text(self.folder.path / name, content)
        processes = control_plane_processes(
            plan, controller_manager=self._controller_manager, scheduler=self._scheduler
        )
        self._processes = GuardedProcesses(self.folder.path, processes, detached=self._detached)
        self._processes.start()
        self._processes.wait_for("the API server", self._started, self._timeout)

    def _started(self) -> bool:
        # The default namespace appears a moment after /readyz; tests create objects in it at once.
        return self.client.ready() and self.client.get("/api/v1/namespaces/default") is not None

    def stop(self) -> None:
        """Kill everything; remove the folder when it was a temporary one. May be called twice."""
        self._end()
        if self._temporary:
            shutil.rmtree(self.folder.path, ignore_errors=True)

    def _end(self) -> None:
        if self._processes:
            self._processes.stop()
            self._processes = None

    def stop_api_server(self) -> None:
        """Kill the API server (etcd keeps the objects) and wait until it is gone."""
        self._running().stop_one("apiserver")

    def start_api_server(self) -> None:
        """Start it again on the same port and wait until it is ready."""
        self._running().start_one("apiserver")
        wait_for("the API server", self._started, self._timeout, f"See {self.folder.logs}/apiserver.log")

    def _running(self) -> GuardedProcesses:
        if not self._processes:
            raise ClusterError("the control plane is not running: call start() first")
        return self._processes

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """The standard output of kubectl; raises ClusterError with its standard error."""
        command = [self._kube, "kubectl", f"--kubeconfig={self.kubeconfig}", *arguments]
        result = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        if result.returncode:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
