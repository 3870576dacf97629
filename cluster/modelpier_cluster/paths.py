"""Where the cluster keeps things: state that `down` removes, caches that it keeps. Used by every verb.

Both roots follow the XDG base directory specification and can be moved with MODELPIER_CLUSTER_STATE and
MODELPIER_CLUSTER_CACHE (which is also how a run under sudo finds the folders of the user who typed the command).
"""

import os
from pathlib import Path

from modelpier_cluster.errors import ClusterError

# A node mounts its private folders over these, so state below them would vanish inside the node.
HIDDEN_IN_NODES = ("/var/lib", "/var/log", "/run", "/proc", "/sys", "/dev")


def state_root() -> Path:
    """The folder that holds one folder per cluster."""
    default = _xdg("XDG_STATE_HOME", ".local/state") / "modelpier" / "clusters"
    return Path(os.environ.get("MODELPIER_CLUSTER_STATE") or default).absolute()


def cache_root() -> Path:
    """The folder of built programs, image layers and registry contents."""
    default = _xdg("XDG_CACHE_HOME", ".cache") / "modelpier"
    return Path(os.environ.get("MODELPIER_CLUSTER_CACHE") or default).absolute()


def _xdg(variable: str, below_home: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / below_home)


def require_visible_in_nodes(folder: Path) -> None:
    """Raises ClusterError when `folder` lies where nodes mount their own folders."""
    resolved = folder.resolve()
    for hidden in HIDDEN_IN_NODES:
        if resolved.is_relative_to(hidden):
            raise ClusterError(
                f"the folder {folder} lies below {hidden}, which every node replaces by its own: "
                "set MODELPIER_CLUSTER_STATE and MODELPIER_CLUSTER_CACHE to folders elsewhere"
            )


def require_layers_possible(folder: Path, mounts: str) -> None:
    """Raises ClusterError when `folder` cannot hold the layers of images. `mounts`: text of /proc/self/mountinfo."""
    kind = filesystem(folder.resolve(), mounts)
    if kind in {"overlay", "aufs", "nfs", "nfs4", "9p", "fuse"}:
        raise ClusterError(
            f"the folder {folder} lies on a file system of type {kind}, where containers cannot mount their layers: "
            "set MODELPIER_CLUSTER_STATE to a folder on a local disk (in a container: on a volume)"
        )


def filesystem(folder: Path, mounts: str) -> str:
    """The type of the file system of the absolute path `folder`; the later of two mounts at one place counts."""
    best, kind = Path("/"), ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")  # proc(5): the mount point is field 5, the type follows the dash
        point = Path(before.split()[4].encode().decode("unicode_escape"))
        if folder.is_relative_to(point) and point.is_relative_to(best):
            best, kind = point, after.split()[0]
    return kind


def write_text(path: Path, text: str, mode: int = 0o644) -> Path:
    """Write a file with its folders; the file never exists with wider rights than `mode`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    temporary.replace(path)
    return path
