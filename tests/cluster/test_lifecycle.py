"""Up, stop, start, down; two side by side; and that nothing is ever left, however a cluster ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelpier_cluster.addresses import Addresses
from modelpier_cluster.build import SOURCES
from modelpier_cluster.cgroups import hierarchies
from modelpier_cluster.nest import control_plane_nest, node_nest
from modelpier_cluster.progress import wait_for
from support.clusters import Cluster


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


def host_link(cluster: Cluster) -> str:
    """The machine's end of the cable ('none' before the cluster got so far)."""
    spec = cluster.folder / "cluster.json"
    return Addresses(json.loads(spec.read_text())["slot"]).host_link if spec.exists() else "none"


def traces(cluster: Cluster, link: str) -> dict[str, list[str]]:
    """Everything on this machine that belongs to the cluster, by kind. Whatever else runs here is left out."""
    folder = str(cluster.folder)
    network = output("ip", "-o", "address").splitlines() + output("ip", "route", "show", "table", "all").splitlines()
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    found = {
        "processes": [f"{pid}: {text}" for pid, text in command_lines() if folder in text],
        "mounts": [line for line in mounts if folder in line],
        "groups": [str(path) for tree in hierarchies() for path in tree.glob(f"**/*{cluster.name}*")],
        "network": [line for line in network if link in line.split()],
        "state": [folder] if cluster.folder.exists() else [],
    }
    return {kind: lines for kind, lines in found.items() if lines}


def command_lines() -> Iterator[tuple[str, str]]:
    """Also of processes that ended up in other namespaces: the machine sees all of them."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield entry.name, (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def settings() -> dict[str, str]:
    """What a kubelet or kube-proxy would change for the whole machine."""
    names = ("net/ipv4/ip_forward", "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
    values = {name: (Path("/proc/sys") / name).read_text() for name in names}
    return values | {"rules": "\n".join(line for line in output("iptables-save").splitlines() if "KUBE" in line)}


@pytest.fixture
def fresh(new_cluster: Callable[[str], Cluster]) -> Iterator[Cluster]:
    made = new_cluster("life")
    yield made
    made("down", "--purge")


def test_up_is_idempotent_and_down_leaves_the_machine_as_it_was(fresh: Cluster) -> None:
    before = settings()
    begin = time.monotonic()
    assert "n1          Ready" in fresh("up", "--nodes", "1", "--gpus", "2")
    first = control_plane_nest(fresh.folder).outer()
    print(f"up in {time.monotonic() - begin:.1f} s")
    link = host_link(fresh)
    assert set(traces(fresh, link)) == {"processes", "groups", "network", "state"}
    fresh("up", "--nodes", "1", "--gpus", "2")
    assert control_plane_nest(fresh.folder).outer() == first
    assert settings() == before, "a setting of the machine was changed"
    fresh("down")
    assert traces(fresh, link) == {}
    assert settings() == before
    fresh("down")  # once more is fine


@pytest.mark.parametrize("victim", ["outer", "inner"])
def test_a_crash_leaves_nothing_that_down_does_not_remove(fresh: Cluster, victim: str) -> None:
    before = settings()
    fresh("up", "--nodes", "1")
    link = host_link(fresh)
    nest = control_plane_nest(fresh.folder)
    pid = getattr(nest, victim)()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for("the end of the nest", lambda: nest.outer() is None, 20)
    assert fresh.status()["running"] is False
    fresh("down")
    assert traces(fresh, link) == {}
    assert settings() == before


def test_up_after_a_crash_starts_afresh_at_the_same_addresses(fresh: Cluster) -> None:
    fresh("up", "--nodes", "1")
    addresses = fresh.status()["nodeNetwork"]
    fresh.kubectl("create", "configmap", "old")
    outer = control_plane_nest(fresh.folder).outer()
    assert outer is not None
    os.kill(outer, signal.SIGKILL)
    fresh("up", "--nodes", "1")
    assert fresh.status()["nodeNetwork"] == addresses
    assert "old" not in fresh.kubectl("get", "configmaps")


@pytest.mark.parametrize("seconds", [0.15, 0.4, 1.5])
def test_an_interrupted_up_leaves_nothing_that_down_does_not_remove(fresh: Cluster, seconds: float) -> None:
    """The moment of the interruption is what is varied here: not a wait for something to happen."""
    command = [sys.executable, str(SOURCES / "cluster.py"), "up", "--name", fresh.name, "--nodes", "1"]
    process = subprocess.Popen(command, env=fresh.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    link = host_link(fresh)
    fresh("down")
    assert traces(fresh, link) == {}


def test_a_node_is_switched_off_and_on(cluster: Cluster) -> None:
    nest = node_nest(cluster.folder, "n2")
    cluster("stop", "n2")
    assert nest.outer() is None
    wait_for("n2 to be missed", lambda: cluster.status()["nodes"] == {"n1": True, "n2": False}, 60)
    assert cluster("exec", "n1", "hostname").strip() == "n1"
    cluster("start", "n2")
    assert cluster.status()["nodes"] == {"n1": True, "n2": True}


def test_two_clusters_side_by_side(cluster: Cluster, fresh: Cluster) -> None:
    fresh("up", "--nodes", "1")
    one, two = cluster.status(), fresh.status()
    assert one["ready"]
    assert two["ready"]
    for key in ("nodeNetwork", "podNetwork", "serviceNetwork", "registry", "apiServer"):
        assert one[key] != two[key]
    assert one["objectStore"]["access_key"] != two["objectStore"]["access_key"]
    fresh.kubectl("create", "namespace", "only-here")
    assert "only-here" not in cluster.kubectl("get", "namespaces")
    link = host_link(fresh)
    fresh("down")
    assert traces(fresh, link) == {}
    assert cluster.status()["ready"], "taking one down touched the other"


def test_what_dies_inside_is_started_again(cluster: Cluster) -> None:
    def server() -> list[str]:
        return cluster("exec", "cp", "pgrep", "-f", "kube kube-controller-manager", check=False).split()

    (before,) = server()
    cluster("exec", "cp", "kill", "-9", before)
    wait_for("another controller manager", lambda: len(server()) == 1 and server() != [before], 20)


def test_unknown_nodes_are_refused(cluster: Cluster) -> None:
    assert cluster("stop", "n99", check=False) == ""
    assert cluster.status()["nodes"] == {"n1": True, "n2": True}
