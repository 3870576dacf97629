"""The command lines of etcd and the control plane's components. Pure; used by control_plane.py and loopback.py."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from modelpier_cluster.spec import Folder, Options
from modelpier_cluster.supervisor import Process

# Records who did what to which object, without bodies; probes and the nodes' own heartbeats would only bury the rest.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*"]},
        {"level": "None", "namespaces": ["kube-node-lease"]},
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True)
class ControlPlanePlan:
    """Where a control plane listens and what it runs. `loopback`: for tests, without a network of its own."""

    folder: Folder
    kube: str
    address: str
    port: int
    etcd_port: int
    etcd_peer_port: int
    services: str
    options: Options
    loopback: bool = False


def control_plane_processes(
    plan: ControlPlanePlan, *, controller_manager: bool = True, scheduler: bool = True
) -> dict[str, Process]:
    """Etcd and the API server, and what was asked for beside them (started once the API server is ready)."""
    processes = {"etcd": Process(_etcd(plan)), "apiserver": Process(_api_server(plan))}
    if controller_manager:
        processes["controller-manager"] = Process(_controller_manager(plan), gated=True)
    if scheduler:
        processes["scheduler"] = Process(_scheduler(plan), gated=True)
    return processes


def control_plane_files(plan: ControlPlanePlan) -> Mapping[str, str]:
    """The configuration files that the processes read, by name in the state folder."""
    kubeconfig = str(plan.folder.kubeconfig())
    scheduler = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {"kubeconfig": kubeconfig, "qps": 500, "burst": 500},
    }
    return {"audit-policy.json": json.dumps(AUDIT_POLICY), "scheduler.json": json.dumps(scheduler)}


def _etcd(plan: ControlPlanePlan) -> tuple[str, ...]:
    client, peer = f"http://127.0.0.1:{plan.etcd_port}", f"http://127.0.0.1:{plan.etcd_peer_port}"
    return (
        *(plan.kube, "etcd", "--name=default", f"--data-dir={plan.folder.path}/etcd", "--log-level=warn"),
        # The data lives as long as the cluster: losing it in a power cut is fine, waiting for the disk is not.
        "--unsafe-no-fsync",
        *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
        *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"),
    )


def _api_server(plan: ControlPlanePlan) -> tuple[str, ...]:
    folder, pki = plan.folder.path, plan.folder.pki
    loopback = ("--bind-address=127.0.0.1", "--endpoint-reconciler-type=none") if plan.loopback else ()
    return (
        *(plan.kube, "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{plan.etcd_port}"),
        *(f"--secure-port={plan.port}", f"--advertise-address={plan.address}", *loopback),
        *(f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key"),
        *(f"--client-ca-file={pki}/ca.crt", f"--token-auth-file={folder}/tokens.csv"),
        *(f"--service-account-key-file={pki}/sa.pub", f"--service-account-signing-key-file={pki}/sa.key"),
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-cluster-ip-range={plan.services}",
        *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged"),
        *("--kubelet-preferred-address-types=InternalIP", f"--kubelet-client-certificate={pki}/client.crt"),
        f"--kubelet-client-key={pki}/client.key",
        *(f"--requestheader-client-ca-file={pki}/ca.crt", "--requestheader-allowed-names=front-proxy"),
        *("--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group"),
        "--requestheader-username-headers=X-Remote-User",
        *(f"--proxy-client-cert-file={pki}/client.crt", f"--proxy-client-key-file={pki}/client.key"),
        *(f"--audit-policy-file={folder}/audit-policy.json", f"--audit-log-path={plan.folder.audit_log}"),
        *("--audit-log-maxsize=500", "--audit-log-maxbackup=1"),
        *plan.options.api_server_arguments,
    )


def _controller_manager(plan: ControlPlanePlan) -> tuple[str, ...]:
    pki = plan.folder.pki
    return (
        *(plan.kube, "kube-controller-manager", f"--kubeconfig={plan.folder.kubeconfig()}", *_unserved(plan)),
        *(f"--service-account-private-key-file={pki}/sa.key", f"--root-ca-file={pki}/ca.crt"),
        *(f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key"),
        "--use-service-account-credentials",
        *("--kube-api-qps=500", "--kube-api-burst=500", "--leader-elect=false"),
        *("--horizontal-pod-autoscaler-sync-period=2s", "--node-monitor-period=1s"),
        f"--node-monitor-grace-period={plan.options.node_monitor_grace}",
    )


def _scheduler(plan: ControlPlanePlan) -> tuple[str, ...]:
    return (plan.kube, "kube-scheduler", f"--config={plan.folder.path}/scheduler.json", *_unserved(plan))


def _unserved(plan: ControlPlanePlan) -> tuple[str, ...]:
    """Without a network of its own, a component's fixed port would clash with the next control plane's."""
    return ("--secure-port=0",) if plan.loopback else ()
