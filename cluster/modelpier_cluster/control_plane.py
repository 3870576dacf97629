"""The control plane's nest: bridge, etcd, API server, managers, DNS, registry, object store. Runs as its PID 1."""

import json
from pathlib import Path

from modelpier_cluster.addresses import API_PORT, OBJECT_STORE_PORT, Addresses
from modelpier_cluster.api import is_ready
from modelpier_cluster.cgroups import LEAF, create_group, is_unified, own_group
from modelpier_cluster.commands import run, search_path
from modelpier_cluster.components import ControlPlanePlan, control_plane_files, control_plane_processes
from modelpier_cluster.network import set_up_control_plane
from modelpier_cluster.node import start_node
from modelpier_cluster.node_config import proxy_config
from modelpier_cluster.object_store import Keys, object_store_process
from modelpier_cluster.paths import write_text
from modelpier_cluster.spec import ClusterSpec, Folder, registry_folder
from modelpier_cluster.supervisor import Process, Supervisor


def run_control_plane(folder: Folder) -> None:
    """PID 1 of the cluster; never returns."""
    spec = folder.read_spec()
    addresses = spec.addresses()
    run("mount", "--make-rshared", "/")
    run("hostname", f"{spec.name}-control-plane")
    set_up_control_plane(addresses)
    resolver = write_text(folder.path / "resolv.conf", f"nameserver {addresses.control_plane}\n")
    run("mount", "--bind", resolver, "/etc/resolv.conf")
    _settle_group(folder)
    plan = _plan(folder, spec, addresses)
    for name, content in {**control_plane_files(plan), **service_files(folder, spec, addresses)}.items():
        write_text(folder.path / name, content)
    processes = {**control_plane_processes(plan), **_services(folder, spec, addresses)}
    for node in spec.node_names():
        start_node(folder, node)
    gate = folder.kubeconfig()
    Supervisor(processes, folder.logs, search_path(spec.programs), lambda: is_ready(gate)).run()


def _settle_group(folder: Folder) -> None:
    """Make the cluster's control group known. In a delegated scope it is the one above this process's leaf."""
    if folder.cgroup_file.exists():
        group = folder.cgroup_file.read_text().strip()
    else:
        group = own_group(Path("/proc/self/cgroup").read_text()).removesuffix(f"/{LEAF}")
        write_text(folder.cgroup_file, f"{group}\n")
    create_group(f"{group}/{LEAF}" if is_unified() else group)


def _plan(folder: Folder, spec: ClusterSpec, addresses: Addresses) -> ControlPlanePlan:
    return ControlPlanePlan(
        folder=folder,
        kube=f"{spec.programs}/kube",
        address=str(addresses.control_plane),
        port=API_PORT,
        etcd_port=2379,
        etcd_peer_port=2380,
        services=str(addresses.services),
        options=spec.options,
    )


def service_files(folder: Folder, spec: ClusterSpec, addresses: Addresses) -> dict[str, str]:
    """Configuration of DNS, registry and the control plane's own kube-proxy. Pure."""
    registry = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}, "level": "warn"},
        "http": {"addr": addresses.registry},
        "storage": {"filesystem": {"rootdirectory": str(registry_folder(spec.name))}, "delete": {"enabled": True}},
    }
    # kube-proxy waits half a minute for the Node of its own name, so it borrows the first node's.
    proxy = proxy_config(folder, addresses, spec.options, "n1")
    return {
        "Corefile": _corefile(folder, addresses),
        "registry.yaml": json.dumps(registry, indent=1),
        "proxy.json": json.dumps(proxy, indent=1),
    }


def _corefile(folder: Folder, addresses: Addresses) -> str:
    """Cluster names only: there is no resolver to forward to, as there is no way out."""
    return f""".:53 {{
  bind {addresses.control_plane}
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {folder.kubeconfig()} {folder.path.name}
    pods insecure
  }}
  cache 5
  errors
}}
"""


def _services(folder: Folder, spec: ClusterSpec, addresses: Addresses) -> dict[str, Process]:
    kube = f"{spec.programs}/kube"
    listen = f"{addresses.control_plane}:{OBJECT_STORE_PORT}"
    keys = Keys.read(folder.object_store_keys)
    return {
        # The control plane calls webhooks and aggregated APIs at their service addresses.
        "proxy": Process((kube, "kube-proxy", f"--config={folder.path}/proxy.json"), gated=True),
        "coredns": Process((kube, "coredns", "-conf", f"{folder.path}/Corefile"), gated=True),
        "registry": Process((kube, "registry", "serve", f"{folder.path}/registry.yaml")),
        "object-store": object_store_process(
            Path(spec.programs) / "versitygw", folder.path / "object-store", listen, keys
        ),
    }
