"""Names and addresses of a cluster, all derived from its name and its slot. Pure; used by every other module.

A machine has 16 slots. Each slot owns addresses that never leave the machine:
  nodes     a /27 of 198.51.100.0/24 (TEST-NET-2) or 203.0.113.0/24 (TEST-NET-3), RFC 5737
  pods      a /20 of 198.18.0.0/16 (benchmarking, RFC 2544), of which each node gets a /24
  services  a /20 of 198.19.0.0/16
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from modelpier_cluster.errors import ClusterError

SLOTS = 16
MAX_NODES = 9
DEFAULT_NAME = "modelpier"

API_PORT = 6443
REGISTRY_PORT = 5000
OBJECT_STORE_PORT = 7070

_NODE_NETWORKS = [
    subnet
    for network in ("198.51.100.0/24", "203.0.113.0/24")
    for subnet in IPv4Network(network).subnets(new_prefix=27)
]
_POD_NETWORKS = list(IPv4Network("198.18.0.0/16").subnets(new_prefix=20))
_SERVICE_NETWORKS = list(IPv4Network("198.19.0.0/16").subnets(new_prefix=20))
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?")


def check_name(name: str) -> str:
    """Returns `name`; raises ClusterError when it is not usable in file, cgroup and host names."""
    if not _NAME.fullmatch(name):
        raise ClusterError(
            f"--name {name!r}: use 1 to 30 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
        )
    return name


def node_names(count: int) -> list[str]:
    """n1 ... n<count>; raises ClusterError outside 1..9."""
    if not 1 <= count <= MAX_NODES:
        raise ClusterError(f"--nodes {count}: between 1 and {MAX_NODES} nodes are possible")
    return [f"n{number}" for number in range(1, count + 1)]


@dataclass(frozen=True)
class Addresses:
    """The addresses of the cluster in `slot` (0..15)."""

    slot: int

    @property
    def node_network(self) -> IPv4Network:
        return _NODE_NETWORKS[self.slot]

    @property
    def pods(self) -> IPv4Network:
        return _POD_NETWORKS[self.slot]

    @property
    def services(self) -> IPv4Network:
        return _SERVICE_NETWORKS[self.slot]

    @property
    def control_plane(self) -> IPv4Address:
        return self.node_network[1]

    @property
    def host(self) -> IPv4Address:
        """The address of the machine itself, as pods see it."""
        return self.node_network[30]

    @property
    def kubernetes_service(self) -> IPv4Address:
        return self.services[1]

    @property
    def host_link(self) -> str:
        """The machine's end of the cable. Its existence also marks the slot as taken."""
        return f"modelpier{self.slot}"

    @property
    def registry(self) -> str:
        return f"{self.control_plane}:{REGISTRY_PORT}"

    @property
    def object_store(self) -> str:
        return f"http://{self.control_plane}:{OBJECT_STORE_PORT}"

    @property
    def api_server(self) -> str:
        return f"https://{self.control_plane}:{API_PORT}"

    def node(self, name: str) -> IPv4Address:
        return self.node_network[10 + node_number(name)]

    def node_pods(self, name: str) -> IPv4Network:
        return list(self.pods.subnets(new_prefix=24))[node_number(name)]


def node_number(name: str) -> int:
    """3 for 'n3'; raises ClusterError for anything but n1..n9."""
    if not re.fullmatch(r"n[1-9]", name):
        raise ClusterError(f"{name!r} is no node: nodes are called n1 to n{MAX_NODES}")
    return int(name[1:])
