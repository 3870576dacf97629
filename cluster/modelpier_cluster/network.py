"""Links, addresses and routes: the machine's cable to the cluster, the bridge inside, each node's uplink. Needs root.

The cluster's own network has no way out (`unreachable default`): nothing in it can download anything by accident.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelpier_cluster.addresses import MAX_NODES, SLOTS, Addresses
from modelpier_cluster.commands import run, succeeds
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.progress import wait_for

NODES = [f"n{number}" for number in range(1, MAX_NODES + 1)]


@contextmanager
def slots_locked() -> Iterator[None]:
    """Only one process at a time looks for a free slot and takes it, whoever's cluster it is."""
    descriptor = os.open("/run", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def free_slot(preferred: int | None, links: set[str]) -> int:
    """`preferred` when it is free, else the lowest free slot, given the names of the machine's links. Pure."""
    free = [slot for slot in range(SLOTS) if Addresses(slot).host_link not in links]
    if not free:
        raise ClusterError(f"all {SLOTS} slots for clusters are taken: take one down with `down --name NAME`")
    return preferred if preferred in free else free[0]


def machine_links() -> set[str]:
    return {entry.name for entry in Path("/sys/class/net").iterdir()}


def connect_machine(addresses: Addresses, nest: int) -> None:
    """Plug the machine into the cluster: host processes reach pods, services and nodes, and pods reach the host."""
    link = addresses.host_link
    prefix = addresses.node_network.prefixlen
    run("ip", "link", "add", link, "type", "veth", "peer", "name", "up0", "netns", str(nest))
    run("ip", "address", "add", f"{addresses.host}/{prefix}", "dev", link)
    run("ip", "link", "set", link, "up")
    for network in (addresses.pods, addresses.services):
        run("ip", "route", "add", str(network), "via", str(addresses.control_plane))


def disconnect_machine(addresses: Addresses) -> None:
    succeeds("ip", "link", "delete", addresses.host_link)


def set_up_control_plane(addresses: Addresses) -> None:
    """Inside the control plane's nest: the bridge, its address, and the routes to the pods of every possible node."""
    run("ip", "link", "set", "lo", "up")
    _wait_for_link("up0")
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "address", "add", f"{addresses.control_plane}/{addresses.node_network.prefixlen}", "dev", "br0")
    run("ip", "link", "set", "br0", "up")
    run("ip", "link", "set", "up0", "master", "br0", "up")
    run("ip", "route", "add", "unreachable", "default")
    _forward()
    for node in NODES:
        _route_to_pods(addresses, node)


def connect_node(node: str, nest: int) -> None:
    """Inside the control plane's nest: plug a node's nest into the bridge."""
    succeeds("ip", "link", "delete", node)  # of a node that was switched off a moment ago
    run("ip", "link", "add", node, "type", "veth", "peer", "name", "eth0", "netns", str(nest))
    run("ip", "link", "set", node, "master", "br0", "up")


def set_up_node(addresses: Addresses, node: str) -> None:
    """Inside a node's nest: its address and the routes to the pods of the other nodes."""
    run("ip", "link", "set", "lo", "up")
    _wait_for_link("eth0")
    run("ip", "address", "add", f"{addresses.node(node)}/{addresses.node_network.prefixlen}", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "default", "via", str(addresses.control_plane))
    _forward()
    for other in NODES:
        if other != node:
            _route_to_pods(addresses, other)


def _route_to_pods(addresses: Addresses, node: str) -> None:
    run("ip", "route", "add", str(addresses.node_pods(node)), "via", str(addresses.node(node)))


def _forward() -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _wait_for_link(name: str) -> None:
    wait_for(f"the link {name}", lambda: Path(f"/proc/sys/net/ipv4/conf/{name}").exists(), 20)
