import os
import platform
import shutil
import sys
from pathlib import Path

import pytest

from modelpier_cluster import privilege
from modelpier_cluster.build import SOURCES
from modelpier_cluster.cli import main
from modelpier_cluster.commands import search_path
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.progress import Progress


@pytest.fixture
def ordinary_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("MODELPIER_CLUSTER_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MODELPIER_CLUSTER_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_root_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "execvp", lambda *_: pytest.fail("there is no need for sudo"))
    privilege.become_root(["up"])


def test_sudo_runs_the_same_command_on_the_users_folders(ordinary_user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []
    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"/usr/bin/{name}")
    monkeypatch.setattr(os, "execvp", lambda _, argv: commands.append(argv))
    privilege.become_root(["up", "--name", "x"], {"MODELPIER_CLUSTER_PROGRAMS": "/built"})
    (argv,) = commands
    assert argv[:2] == ["sudo", "env"]
    assert argv[-5:] == [sys.executable, str(SOURCES / "cluster.py"), "up", "--name", "x"]
    assert f"MODELPIER_CLUSTER_STATE={ordinary_user}/state" in argv
    assert f"MODELPIER_CLUSTER_CACHE={ordinary_user}/cache" in argv
    assert "MODELPIER_CLUSTER_PROGRAMS=/built" in argv
    assert (ordinary_user / "state").is_dir(), "made by the user, so that it stays the user's"


def test_without_sudo_the_ways_out_are_named(ordinary_user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(ClusterError, match=r"KUBECONFIG.*--control-plane-only"):
        privilege.become_root(["up"])


def test_elsewhere_than_on_debian_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(ClusterError, match="conntrack curl iproute2 iptables mount openssl procps runc util-linux"):
        privilege.ensure_packages(Progress(quiet=True), privilege.CLUSTER_PROGRAMS)


def test_missing_packages_are_installed_after_one_update(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None if name == "runc" else f"/bin/{name}")
    monkeypatch.setattr(privilege, "run", lambda *argv, timeout: ran.append(argv[:2] + argv[-1:]))
    monkeypatch.setenv("DEBIAN_FRONTEND", "")
    privilege.ensure_packages(Progress(quiet=True), privilege.CLUSTER_PROGRAMS)
    assert ran == [("apt-get", "update", "-qq"), ("apt-get", "install", "runc")]


def test_programs_of_administrators_are_found_by_users_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/home/me/bin:/usr/bin")
    assert search_path("/built").split(":") == [
        *("/built", "/home/me/bin", "/usr/bin"),
        *("/usr/local/sbin", "/usr/sbin", "/sbin", "/bin"),
    ]
    monkeypatch.setenv("PATH", search_path())
    assert search_path() == search_path().strip(":"), "no empty part, which would mean the current folder"
    assert search_path().count("/usr/sbin") == 1


def test_a_users_command_runs_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo env PATH=...` hands the user's PATH on, and debootstrap and chroot are in sbin."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert main(["status", "--name", "Bad_Name"]) == 1
    assert os.environ["PATH"].endswith("/usr/sbin:/sbin")


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64")])
def test_other_machines_are_told_to_use_a_cluster_they_have(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(ClusterError, match="set KUBECONFIG"):
        privilege.require_linux()
