"""The verbs that the driver calls itself, as PID 1 of a nest or as a supervisor. Never typed by a person."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from modelpier_cluster.api import is_ready
from modelpier_cluster.cgroups import LEAF, ROOT, enter_leaf, is_unified, own_group
from modelpier_cluster.control_plane import run_control_plane
from modelpier_cluster.node import run_node, start_node
from modelpier_cluster.spec import Folder
from modelpier_cluster.supervisor import supervise_folder

Hidden = Callable[[Path, Sequence[str]], None]


def _control_plane(path: Path, _: Sequence[str]) -> None:
    run_control_plane(Folder(path))


def _node(path: Path, rest: Sequence[str]) -> None:
    run_node(Folder(path), rest[0])


def _start_node(path: Path, rest: Sequence[str]) -> None:
    folder = Folder(path)
    if is_unified():
        group = folder.cgroup_file.read_text().strip().lstrip("/")
        if (ROOT / group / LEAF).exists():  # not in the session of the one who typed the command
            enter_leaf(ROOT / group)
    start_node(folder, rest[0])


def _in_leaf(program: Path, rest: Sequence[str]) -> None:
    """Run by systemd-run in the new scope: clear its own group for controllers, then become the given command."""
    enter_leaf(ROOT / own_group(Path("/proc/self/cgroup").read_text()).lstrip("/"))
    os.execvp(str(program), [str(program), *rest])  # noqa: S606


def _supervise(path: Path, _: Sequence[str]) -> None:
    supervise_folder(path, lambda: is_ready(Folder(path).kubeconfig()), lifeline=True)


def _supervise_detached(path: Path, _: Sequence[str]) -> None:
    supervise_folder(path, lambda: is_ready(Folder(path).kubeconfig()), lifeline=False)


HIDDEN: Mapping[str, Hidden] = {
    "_control-plane": _control_plane,
    "_node": _node,
    "_start-node": _start_node,
    "_in-leaf": _in_leaf,
    "_supervise": _supervise,
    "_supervise-detached": _supervise_detached,
}
