"""A node: containerd, kubelet, kube-proxy and the pretended GPUs in a nest of their own. Runs as that nest's PID 1."""

from pathlib import Path

from modelpier_cluster.cgroups import create_group
from modelpier_cluster.commands import run, search_path
from modelpier_cluster.nest import node_nest
from modelpier_cluster.network import connect_node, set_up_node
from modelpier_cluster.node_config import PAUSE_IMAGE, NodePlan, node_files, node_labels
from modelpier_cluster.paths import write_text
from modelpier_cluster.spec import Folder
from modelpier_cluster.supervisor import Process, Supervisor

# What a kubelet sets for the whole machine. It gets private files instead, and the machine stays as it was.
KUBELET_SYSCTLS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}


def start_node(folder: Folder, node: str) -> None:
    """Inside the control plane's nest: make the node's nest and plug it in."""
    nest = node_nest(folder.path, node)
    connect_node(node, nest.start(folder.logs / f"{node}.log"))


def run_node(folder: Folder, node: str) -> None:
    """PID 1 of a node; never returns."""
    spec = folder.read_spec()
    plan = NodePlan(
        name=node,
        addresses=spec.addresses(),
        folder=folder,
        programs=Path(spec.programs),
        options=spec.options,
        group=f"{folder.cgroup_file.read_text().strip()}/{node}",
    )
    run("mount", "--make-rshared", "/")
    run("hostname", node)
    set_up_node(plan.addresses, node)
    for name, content in node_files(plan).items():
        write_text(plan.files / name, content)
    create_group(plan.group)
    _mount_private_folders(plan.files)
    _hide_machine_settings(plan.files)
    Supervisor(node_processes(plan), folder.logs, search_path(spec.programs)).run()


def _mount_private_folders(files: Path) -> None:
    """The default paths, private to this node. /run is in memory: sockets and pod networks go with the nest."""
    for name in ("lib", "log"):
        for sub in ("kubelet", "containerd", "pods"):
            (files / name / sub).mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", files / name, f"/var/{name}")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    Path("/run/lock").mkdir()
    run("mount", "--make-rshared", "/")


def _hide_machine_settings(files: Path) -> None:
    for key, value in KUBELET_SYSCTLS.items():
        target = Path("/proc/sys") / key
        if target.exists():
            private = write_text(files / "sysctl" / key.replace("/", "_"), f"{value}\n")
            run("mount", "--bind", private, target)


def node_processes(plan: NodePlan) -> dict[str, Process]:
    """What runs on a node. Pure."""
    kube, files, node = f"{plan.programs}/kube", plan.files, plan.name
    kubeconfig = plan.folder.kubeconfig(node)
    processes = {
        "containerd": (f"{plan.programs}/containerd", f"--config={files}/containerd.toml"),
        "pause-image": ("sh", "-c", _import_pause(plan)),
        "kubelet": (
            *(kube, "kubelet", f"--config={files}/kubelet.json", f"--kubeconfig={kubeconfig}"),
            *(f"--hostname-override={node}", f"--node-ip={plan.addresses.node(node)}"),
            f"--node-labels={node_labels(node)}",
        ),
        "proxy": (kube, "kube-proxy", f"--config={files}/proxy.json"),
    }
    if plan.options.gpus:
        gpus = ("fake-gpu", f"--count={plan.options.gpus}", f"--node={node}", f"--kubeconfig={kubeconfig}")
        processes["gpu"] = (kube, *gpus)
    return {f"{node}-{name}": Process(argv) for name, argv in processes.items()}


def _import_pause(plan: NodePlan) -> str:
    """A shell loop: containerd needs a moment, and nothing on a node may depend on the registry for its sandboxes."""
    ctr = f"'{plan.programs}/ctr' --namespace k8s.io images"
    archive = f"'{plan.folder.path}/pause.tar'"
    return (
        f"until {ctr} import {archive} && {ctr} label {PAUSE_IMAGE} io.cri-containerd.pinned=pinned; "
        "do sleep 0.2; done; exec sleep infinity"
    )
