"""`up`, `down`, `stop` and `start` of a whole cluster, from the outside. Used by the command line; needs root."""

import contextlib
import dataclasses
import datetime as dt
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from modelpier_cluster.addresses import Addresses, node_names, node_number
from modelpier_cluster.api import ApiClient, is_ready
from modelpier_cluster.archive import scratch_archive
from modelpier_cluster.cgroups import PARENT, is_unified, placement, remove_group, stop_scope, systemd_runs
from modelpier_cluster.commands import run
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.guarded import stop_detached
from modelpier_cluster.nest import ENTRY, Nest, control_plane_nest, node_nest
from modelpier_cluster.network import NODES, connect_machine, disconnect_machine, free_slot, machine_links, slots_locked
from modelpier_cluster.node_config import PAUSE_IMAGE
from modelpier_cluster.object_store import Keys, accepts, answers
from modelpier_cluster.paths import require_layers_possible, require_visible_in_nodes, write_text
from modelpier_cluster.pki import create_pki, create_users
from modelpier_cluster.privilege import give_to_caller
from modelpier_cluster.progress import Progress
from modelpier_cluster.spec import ClusterSpec, Folder, registry_folder

READY_SECONDS = 180.0


def up(folder: Folder, wanted: ClusterSpec, progress: Progress, seconds: float = READY_SECONDS) -> ClusterSpec:
    """Start the cluster, or leave the running one, and wait until its nodes are Ready (each at most `seconds`)."""
    nest = control_plane_nest(folder.path)
    if nest.outer() is None:
        require_visible_in_nodes(folder.path)
        require_visible_in_nodes(registry_folder(wanted.name))
        require_layers_possible(folder.path, Path("/proc/self/mountinfo").read_text())
        previous = _previous_slot(folder)
        down(folder)
        _start(folder, nest, wanted, previous, progress)
    spec = folder.read_spec()
    _warn_about_differences(spec, wanted, progress)
    wait_until_ready(folder, spec, progress, seconds)
    return spec


def _previous_slot(folder: Folder) -> int | None:
    """After a crash the same addresses are taken again, where they are free."""
    try:
        return folder.read_spec().slot
    except ClusterError:
        return None


def _start(folder: Folder, nest: Nest, wanted: ClusterSpec, slot: int | None, progress: Progress) -> None:
    folder.logs.mkdir(parents=True)
    registry_folder(wanted.name).mkdir(parents=True, exist_ok=True)
    scratch_archive(
        folder.path / "pause.tar", PAUSE_IMAGE, ["/bin/pause"], {"bin/pause": Path(wanted.programs) / "pause"}
    )
    with slots_locked():
        spec = dataclasses.replace(wanted, slot=free_slot(slot, machine_links()))
        addresses = spec.addresses()
        folder.write_spec(spec)
        _prepare(folder, addresses)
        place = placement(
            folder.unique_name, (sys.executable, ENTRY, "_in-leaf"), unified=is_unified(), systemd=systemd_runs()
        )
        if place.group:
            write_text(folder.cgroup_file, f"{place.group}\n")
        pid = nest.start(folder.logs / "control-plane.log", place.prefix)
        connect_machine(addresses, pid)
    progress.say(f"network {addresses.node_network}, certificates, namespaces")


def _prepare(folder: Folder, addresses: Addresses) -> None:
    """Secrets and users; those files that the caller needs belong to the caller."""
    create_pki(folder.pki, ["127.0.0.1", str(addresses.kubernetes_service), str(addresses.control_plane)])
    create_users(folder, addresses.api_server, NODES)
    Keys.generate(addresses.object_store).write(folder.object_store_keys)
    give_to_caller(folder.path, folder.kubeconfig(), folder.object_store_keys)


def _warn_about_differences(running: ClusterSpec, wanted: ClusterSpec, progress: Progress) -> None:
    if (running.nodes, running.options) != (wanted.nodes, wanted.options):
        progress.say(f"cluster {running.name} is already running with other settings: `down` first to change them")


def wait_until_ready(folder: Folder, spec: ClusterSpec, progress: Progress, seconds: float) -> None:
    """Wait for everything that a user could ask the cluster for next; raises ClusterError when the nest ends.

    `seconds` bounds each single wait.
    """
    nest = control_plane_nest(folder.path)

    def wait(what: str, done: Callable[[], bool]) -> None:
        def alive_and_done() -> bool:
            if nest.outer() is None:
                log = folder.logs / "control-plane.log"
                raise ClusterError(f"the cluster ended while it started: {log.read_text(errors='replace')[-1500:]}")
            return done()

        progress.wait(what, alive_and_done, seconds, f"The logs are in {folder.logs}")

    wait("the API server", lambda: is_ready(folder.kubeconfig()))
    progress.say("control plane ready")
    client, addresses = ApiClient.of(folder.kubeconfig()), spec.addresses()
    for node in spec.node_names():
        wait(f"node {node}", partial(client.node_ready, node))
        progress.say(f"node {node} Ready")

    def has_gpus(node: str) -> bool:
        return client.node_gpus(node) == spec.options.gpus

    for node in spec.node_names():
        wait(f"the GPUs of {node}", partial(has_gpus, node))
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    wait("the default service account", lambda: client.get(account) is not None)
    wait("the registry", lambda: answers(f"http://{addresses.registry}/v2/"))
    wait("the object store", lambda: answers(addresses.object_store))
    wait("DNS", lambda: accepts(str(addresses.control_plane), 53))
    give_to_caller(folder.audit_log)


def down(folder: Folder, *, purge: bool = False) -> None:
    """Remove every trace, whatever state the cluster is in; `purge` forgets the contents of its registry, too."""
    stop_detached(folder.path)
    control_plane_nest(folder.path).kill()
    name = folder.path.name
    stop_scope(folder.unique_name)
    progress = Progress(quiet=True)
    for group in _groups(folder):
        progress.wait(f"the end of the control group {group}", partial(remove_group, group), 30)
    with contextlib.suppress(ClusterError):  # no state, or a control plane only: no link
        disconnect_machine(folder.read_spec().addresses())
    for path in (folder.path, *((registry_folder(name),) if purge else ())):
        if path.exists():
            shutil.rmtree(path)


def _groups(folder: Folder) -> set[str]:
    groups = {f"/{PARENT}/{folder.unique_name}"}
    if folder.cgroup_file.exists():
        groups.add(folder.cgroup_file.read_text().strip())
    return groups


def stop_node(folder: Folder, node: str) -> None:
    """Switch a node off, as if its plug were pulled. Raises ClusterError when the cluster has no such node."""
    node_number(node)
    if node not in (nodes := folder.read_spec().node_names()):
        raise ClusterError(
            f"cluster {folder.path.name} has no node {node}, only {', '.join(nodes) or 'a control plane'}"
        )
    node_nest(folder.path, node).kill()


def start_node(folder: Folder, node: str, progress: Progress, seconds: float = READY_SECONDS) -> None:
    """Switch a node on again (or add one) and wait until it is Ready."""
    node_number(node)
    since = dt.datetime.now(dt.UTC)
    off = node_nest(folder.path, node).outer() is None
    if off:
        inside = control_plane_nest(folder.path).enter()
        run(*inside, sys.executable, ENTRY, "_start-node", str(folder.path), node)
    spec = folder.read_spec()
    if node not in spec.node_names():
        folder.write_spec(dataclasses.replace(spec, nodes=node_number(node)))
    client = ApiClient.of(folder.kubeconfig())

    def ready() -> bool:
        # Until the first heartbeat the API server still says what it was told before the node went off.
        return client.node_ready(node) and (not off or client.heard_from(node, since))

    progress.wait(f"node {node}", ready, seconds, f"The logs are in {folder.logs}")
    progress.say(f"node {node} Ready")


def running_nodes(folder: Folder) -> list[str]:
    return [node for node in node_names(len(NODES)) if node_nest(folder.path, node).outer() is not None]
