"""Root and system packages, with at most one prompt for a password. Used by the verbs before they touch the machine."""

import os
import platform
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from modelpier_cluster.build import SOURCES
from modelpier_cluster.commands import run, search_path
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.handover import AS_ROOT, passed_on, write_environment
from modelpier_cluster.paths import cache_root, state_root
from modelpier_cluster.progress import Progress

# Debian's and Ubuntu's package for each program (or file) that is used.
CLUSTER_PROGRAMS = {
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "openssl": "openssl",
    "pgrep": "procps",
    "curl": "curl",
}
IMAGE_PROGRAMS = {
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}


def require_linux() -> None:
    if platform.system() != "Linux" or platform.machine() not in {"x86_64", "AMD64"}:
        raise ClusterError(
            f"a cluster needs Linux on x86-64, this is {platform.system()} on {platform.machine()}: "
            "set KUBECONFIG to a cluster that you have"
        )


def is_root() -> bool:
    return os.geteuid() == 0


def become_root(arguments: Iterable[str], extra: Mapping[str, str] | None = None) -> None:
    """Run the same command again through sudo and exit with its status; does nothing for root.

    The caller's settings go with it in a file (see handover.py), the caller's folders among them, as root's home is
    another one.
    """
    if is_root():
        return
    if not shutil.which("sudo"):
        raise ClusterError(
            "this needs root and there is no sudo. Without root: set KUBECONFIG to a cluster that you have, "
            "or use `up --control-plane-only`"
        )
    for folder in (state_root(), cache_root()):
        folder.mkdir(parents=True, exist_ok=True)  # as the user, so that it remains the user's
    kept = passed_on(os.environ) | dict(extra or {})
    if (own := Path.home() / ".config" / "pip" / "pip.conf").is_file():
        kept.setdefault("PIP_CONFIG_FILE", str(own))  # root's home is another one
    kept |= {"MODELPIER_CLUSTER_STATE": str(state_root()), "MODELPIER_CLUSTER_CACHE": str(cache_root())}
    file = write_environment(state_root(), kept)
    command = ["sudo", sys.executable, str(SOURCES / "cluster.py"), AS_ROOT, str(file), *arguments]
    os.execvp(command[0], command)  # noqa: S606


def missing_packages(programs: Mapping[str, str]) -> list[str]:
    """The packages of those `programs` that are not installed."""
    path = search_path()
    return sorted({package for program, package in programs.items() if not _is_there(program, path)})


def _is_there(program: str, path: str) -> bool:
    """A name is looked up in `path`; an absolute one is a file."""
    return Path(program).exists() if program.startswith("/") else shutil.which(program, path=path) is not None


def ensure_packages(progress: Progress, programs: Mapping[str, str]) -> None:
    """Install what is missing on Debian and Ubuntu (as root); elsewhere raises ClusterError naming the packages."""
    packages = missing_packages(programs)
    if not packages:
        return
    if not shutil.which("apt-get") or not is_root():
        raise ClusterError(f"these programs are missing, please install: {' '.join(packages)} (Debian's package names)")
    progress.say(f"installing {' '.join(packages)}")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run("apt-get", "update", "-qq", timeout=300)
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages, timeout=900)


def give_to_caller(*paths: Path) -> None:
    """Under sudo: make these files the user's own, so that kubectl can read them later without root."""
    user, group = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    if is_root() and user and group:
        for path in paths:
            if path.exists():
                os.chown(path, int(user), int(group))
