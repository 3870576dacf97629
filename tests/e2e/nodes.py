"""What happens to a pod behind Kubernetes' back, on its node: the kernel kills a process, a network drops packets. Used
by the tests of kills and of truth; conftest's `on_node` enters the node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from e2e.world import Manifest

OnNode = Callable[..., None]


def kill(on_node: OnNode, pod: Manifest) -> None:
    """SIGKILL to all processes of Modelpier's in the pod, PID 1 of its container among them, which nothing inside can
    do. No signal handler runs, and the kubelet starts the container again.
    """
    _each_process(on_node, pod, "kill -KILL $p || :")


@contextmanager
def cut_off(on_node: OnNode, pods: Iterable[Manifest], port: int) -> Iterator[None]:
    """Packets from these pods to that port of others are dropped, as by a NetworkPolicy."""
    pods = tuple(pods)

    def change(how: str) -> None:
        rule = f"OUTPUT -p tcp --dport {port} -j DROP"
        for pod in pods:
            _each_process(on_node, pod, f"nsenter --net=/proc/$p/ns/net iptables --wait {how} {rule}")

    change("--insert")
    try:
        yield
    finally:
        change("--delete")


def _each_process(on_node: OnNode, pod: Manifest, command: str) -> None:
    """Of the pod, found by the name of the program and the host name in its environment; fails where there is none."""
    mine = f"tr '\\0' '\\n' </proc/$p/environ | grep -qx HOSTNAME={pod['metadata']['name']}"
    found = f"for p in $(pgrep -f bin/modelpier-); do if {mine}; then {command}; found=1; fi; done; [ $found ]"
    on_node(pod["spec"]["nodeName"], "sh", "-ec", found)
