"""Control groups for nodes, on cgroup v1, on cgroup v2 under systemd, and on cgroup v2 without it.

Every node's kubelet gets a group of its own, `<cluster's group>/<node>`, with all controllers; `<cluster>` is the
Folder's unique name, as the machine has one tree of groups for the clusters of all its users:

  v1                   /modelpier/<cluster> in every hierarchy
  v2 under systemd     a scope unit with Delegate=yes, which systemd then leaves to us
  v2 without systemd   /modelpier/<cluster>

On v2 a group may have processes or controllers for its children, never both ("no internal processes"), so the
cluster's own processes live in a leaf of their own. Kernel: Documentation/admin-guide/cgroup-v2.rst; systemd:
CGROUP_DELEGATION.md.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from modelpier_cluster.commands import succeeds
from modelpier_cluster.errors import ClusterError

ROOT = Path("/sys/fs/cgroup")
PARENT = "modelpier"
LEAF = "processes"
NEEDED = ("cpu", "cpuset", "memory", "pids")
# The kubelet refuses a group that lacks any of these which the machine has; systemd does not hand down hugetlb itself.
USED = (*NEEDED, "hugetlb", "io")


def is_unified(root: Path = ROOT) -> bool:
    return (root / "cgroup.controllers").exists()


def hierarchies(root: Path = ROOT) -> list[Path]:
    """The mounted trees: one on v2; on v1 one per controller (links such as cpu,cpuacct are left out)."""
    if is_unified(root):
        return [root]
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.is_symlink())


def systemd_runs() -> bool:
    return Path("/run/systemd/system").is_dir() and shutil.which("systemd-run") is not None


def scope_name(cluster: str) -> str:
    return f"modelpier-cluster-{cluster}.scope"


@dataclass(frozen=True)
class Placement:
    """How a cluster's processes get where they belong: `prefix` starts its outermost process."""

    group: str | None  # the cluster's group; None: it is known only from inside the scope
    prefix: tuple[str, ...]


def placement(cluster: str, leaf_entry: tuple[str, ...], *, unified: bool, systemd: bool) -> Placement:
    """Where the cluster of this unique name goes.

    `leaf_entry` begins a command that moves itself into the leaf and becomes the rest.
    """
    if not unified or not systemd:
        return Placement(f"/{PARENT}/{cluster}", ())
    scope = ("systemd-run", "--scope", "--quiet", "--collect", f"--unit={scope_name(cluster)}")
    return Placement(None, (*scope, "--property=Delegate=yes", *leaf_entry))


def own_group(text: str) -> str:
    """The v2 group in the text of /proc/self/cgroup; raises ClusterError when there is none."""
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:]
    raise ClusterError("/proc/self/cgroup names no cgroup v2 group")


def enter_leaf(group: Path) -> None:
    """Move this process into the leaf of `group`, so that `group` itself holds no process."""
    leaf = group / LEAF
    leaf.mkdir(parents=True, exist_ok=True)
    (leaf / "cgroup.procs").write_text("0")  # 0 is the writer


def enable_controllers(group: Path) -> None:
    """Offer the controllers that `group` has to its children; raises ClusterError when a needed one cannot be."""
    control = group / "cgroup.subtree_control"
    missing = [name for name in _not_offered(group) if not _enable(control, name)]
    missing = [name for name in NEEDED if name in missing or name not in _words(group / "cgroup.controllers")]
    if missing:
        raise ClusterError(
            f"the cgroup controllers {', '.join(missing)} cannot be used in {group}: "
            "nodes need them (on systemd: `systemctl show -p DelegateControllers`; in a container: run it privileged)"
        )


def _enable(control: Path, name: str) -> bool:
    try:
        with control.open("a") as stream:  # opened to append, as a plain file in a test keeps what was there
            stream.write(f"+{name}\n")
    except OSError:
        return False
    return True


def create_group(group: str, root: Path = ROOT) -> None:
    """Make `group` in every hierarchy, usable by a kubelet. On v2 all controllers are enabled down to it."""
    if is_unified(root):
        _create_unified(group, root)
        return
    for hierarchy in hierarchies(root):
        path = hierarchy
        for part in _parts(group):
            path = path / part
            path.mkdir(exist_ok=True)
            if hierarchy.name == "cpuset":  # a new cpuset is empty: nothing could run in it
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (path / file).write_text((path.parent / file).read_text())


def _create_unified(group: str, root: Path) -> None:
    path = root
    for part in _parts(group):
        if _not_offered(path):
            _free_of_processes(path)
            enable_controllers(path)
        path = path / part
        path.mkdir(exist_ok=True)


def _not_offered(group: Path) -> list[str]:
    available, offered = _words(group / "cgroup.controllers"), _words(group / "cgroup.subtree_control")
    return [name for name in USED if name in available and name not in offered]


def _words(file: Path) -> list[str]:
    return file.read_text().split()


def _free_of_processes(group: Path) -> None:
    """In a container the root of the tree is no real root and must hold no processes: move them into a leaf."""
    if not (group / "cgroup.type").exists():  # the machine's real root, where the rule does not apply
        return
    leaf = group / LEAF
    leaf.mkdir(exist_ok=True)
    for pid in (group / "cgroup.procs").read_text().split():
        with contextlib.suppress(OSError):  # it ended, or it belongs to the kernel
            (leaf / "cgroup.procs").write_text(pid)


def _parts(group: str) -> Iterable[str]:
    return Path(group.lstrip("/")).parts


def remove_group(group: str, root: Path = ROOT, remove: Callable[[Path], None] = Path.rmdir) -> bool:
    """Remove `group` with all groups below it, in every hierarchy; returns whether nothing is left.

    The kernel takes a moment to let go of killed processes: call again until it returns True.
    """
    left = False
    for hierarchy in hierarchies(root):
        top = hierarchy.joinpath(*_parts(group))
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                remove(Path(folder))
        left = left or top.exists()
        if top.parent.name == PARENT:
            with contextlib.suppress(OSError):  # another cluster's group is beside ours
                remove(top.parent)
    return not left


def stop_scope(cluster: str) -> None:
    """Let systemd forget the scope of the cluster of this unique name, if there is one."""
    if is_unified() and systemd_runs() and os.geteuid() == 0:
        succeeds("systemctl", "stop", "--quiet", scope_name(cluster))
