"""Up, stop, start, down; two side by side; and that nothing is ever left, however a cluster ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelpier_cluster.build import SOURCES
from modelpier_cluster.cgroups import hierarchies
from modelpier_cluster.nest import control_plane_nest, node_nest
from modelpier_cluster.progress import wait_for


def traces(cluster) -> dict[str, list[str]]:
    """Everything on this machine that belongs to the cluster, by kind; all lists are empty once it is gone."""
    folder = str(cluster.folder)
    processes = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "cmdline").read_bytes().decode(errors="replace") + (entry / "environ").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        if folder in text.replace(cluster.environment["MODELPIER_CLUSTER_STATE"] + "\0", "") and entry.name != str(
            os.getpid()
        ):
            processes.append(f"{entry.name} {text[:200]!r}")
    groups = [str(path) for tree in hierarchies() for path in tree.glob(f"**/*{cluster.name}*")]
    return {
        "processes": processes,
        "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if folder in line],
        "groups": groups,
        "state": [folder] if cluster.folder.exists() else [],
    }


def machine() -> dict[str, str]:
    """What the machine's own network and settings look like."""

    def out(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout

    return {
        "links": "\n".join(sorted(path.name for path in Path("/sys/class/net").iterdir())),
        "routes": out("ip", "route", "show", "table", "all"),
        "rules": out("iptables-save", "-c").replace(":0]", ""),
        "namespaces": out("ip", "netns", "list"),
        "mounts": str(len(Path("/proc/self/mounts").read_text().splitlines())),
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        "overcommit": Path("/proc/sys/vm/overcommit_memory").read_text(),
        "panic": Path("/proc/sys/kernel/panic").read_text(),
    }


def assert_gone(cluster) -> None:
    assert {kind: found for kind, found in traces(cluster).items() if found} == {}


@pytest.fixture
def fresh(new_cluster):
    made = new_cluster("life")
    yield made
    made("down", "--purge")


def test_up_is_idempotent_and_down_leaves_the_machine_as_it_was(fresh):
    before = machine()
    begin = time.monotonic()
    assert "n1          Ready" in fresh("up", "--nodes", "1", "--gpus", "2")
    first = control_plane_nest(fresh.folder).outer()
    print(f"up in {time.monotonic() - begin:.1f} s")
    assert traces(fresh)["processes"]
    assert machine()["links"] != before["links"]
    fresh("up", "--nodes", "1", "--gpus", "2")
    assert control_plane_nest(fresh.folder).outer() == first
    assert machine()["overcommit"] == before["overcommit"], "the kubelet changed a setting of the machine"
    assert machine()["panic"] == before["panic"]
    fresh("down")
    assert_gone(fresh)
    assert machine() == before
    fresh("down")  # once more is fine


@pytest.mark.parametrize("victim", ["outer", "inner"])
def test_a_crash_leaves_nothing_that_down_does_not_remove(fresh, victim):
    before = machine()
    fresh("up", "--nodes", "1")
    nest = control_plane_nest(fresh.folder)
    pid = getattr(nest, victim)()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for("the end of the nest", lambda: nest.outer() is None, 20)
    assert fresh.status()["running"] is False
    fresh("down")
    assert_gone(fresh)
    assert machine() == before


def test_up_after_a_crash_starts_afresh_at_the_same_addresses(fresh):
    fresh("up", "--nodes", "1")
    addresses = fresh.status()["nodeNetwork"]
    fresh.kubectl("create", "configmap", "old")
    os.kill(control_plane_nest(fresh.folder).outer(), signal.SIGKILL)
    fresh("up", "--nodes", "1")
    assert fresh.status()["nodeNetwork"] == addresses
    assert "old" not in fresh.kubectl("get", "configmaps")


@pytest.mark.parametrize("seconds", [0.15, 0.4, 1.5])
def test_an_interrupted_up_leaves_nothing_that_down_does_not_remove(fresh, seconds):
    """The moment of the interruption is what is varied here: not a wait for something to happen."""
    before = machine()
    command = [sys.executable, str(SOURCES / "cluster.py"), "up", "--name", fresh.name, "--nodes", "1"]
    process = subprocess.Popen(command, env=fresh.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    fresh("down")
    assert_gone(fresh)
    wait_for("the links to be gone", lambda: machine() == before, 10)


def test_a_node_is_switched_off_and_on(cluster):
    nest = node_nest(cluster.folder, "n2")
    cluster("stop", "n2")
    assert nest.outer() is None
    wait_for("n2 to be missed", lambda: cluster.status()["nodes"] == {"n1": True, "n2": False}, 60)
    assert cluster("exec", "n1", "hostname").strip() == "n1"
    cluster("start", "n2")
    assert cluster.status()["nodes"] == {"n1": True, "n2": True}


def test_two_clusters_side_by_side(cluster, fresh):
    fresh("up", "--nodes", "1")
    one, two = cluster.status(), fresh.status()
    assert one["ready"]
    assert two["ready"]
    for key in ("nodeNetwork", "podNetwork", "serviceNetwork", "registry", "apiServer"):
        assert one[key] != two[key]
    assert one["objectStore"]["access_key"] != two["objectStore"]["access_key"]
    fresh.kubectl("create", "namespace", "only-here")
    assert "only-here" not in cluster.kubectl("get", "namespaces")
    fresh("down")
    assert_gone(fresh)
    assert cluster.status()["ready"], "taking one down touched the other"


def test_what_dies_inside_is_started_again(cluster):
    def server():
        return cluster("exec", "cp", "pgrep", "-f", "kube kube-controller-manager", check=False).split()

    (before,) = server()
    cluster("exec", "cp", "kill", "-9", before)
    wait_for("another controller manager", lambda: len(server()) == 1 and server() != [before], 20)


def test_unknown_nodes_are_refused(cluster):
    assert cluster("stop", "n99", check=False) == ""
    assert cluster.status()["nodes"] == {"n1": True, "n2": True}
