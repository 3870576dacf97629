import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelpier_cluster import privilege
from modelpier_cluster.build import SOURCES
from modelpier_cluster.cli import main
from modelpier_cluster.commands import search_path
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.handover import passed_on, take_environment, write_environment
from modelpier_cluster.progress import Progress
from modelpier_cluster.spec import ClusterSpec, Folder


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


SUDO = """\
#!/bin/sh
# As sudo with env_reset and secure_path: nothing of the caller's environment reaches the command.
printf '%s\\n' "$@" > {folder}/argv
stat -c %a {folder}/state/.environment-* > {folder}/mode
exec env -i PATH=/usr/bin:/bin HOME=/root SUDO_UID=$(id -u) SUDO_GID=$(id -g) "$@"
"""


Sudo = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def sudo(ordinary_user: Path, monkeypatch: pytest.MonkeyPatch) -> Sudo:
    """Runs become_root with another program in sudo's place; what it is given is in the files argv and mode."""
    (ordinary_user / "bin").mkdir()
    program = ordinary_user / "bin" / "sudo"
    program.write_text(SUDO.format(folder=ordinary_user))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    done: list[subprocess.CompletedProcess[str]] = []

    def execvp(_: str, argv: list[str]) -> None:
        done.append(subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False))

    monkeypatch.setattr(os, "execvp", execvp)

    def run(*arguments: str, extra: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        privilege.become_root(arguments, extra)
        return done.pop()

    return run


def test_sudo_runs_the_same_command_on_the_users_folders(ordinary_user: Path, sudo: Sudo) -> None:
    (ordinary_user / "state" / "x").mkdir(parents=True)
    Folder(ordinary_user / "state" / "x").write_spec(ClusterSpec("x", None, 0, "/built"))
    done = sudo("kubeconfig", "--name", "x")
    assert done.stdout.strip() == f"{ordinary_user}/state/x/admin.kubeconfig"
    argv = (ordinary_user / "argv").read_text().splitlines()
    assert argv[:2] == [sys.executable, str(SOURCES / "cluster.py")]
    assert argv[-3:] == ["kubeconfig", "--name", "x"]


def test_the_folders_are_made_by_the_user(ordinary_user: Path, sudo: Sudo) -> None:
    sudo("kubeconfig")
    assert (ordinary_user / "state").is_dir(), "so that they remain the user's"
    assert (ordinary_user / "cache").is_dir()


def test_the_clusters_settings_reach_root(sudo: Sudo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a verb would act on another cluster than the one that the caller named."""
    monkeypatch.setenv("MODELPIER_CLUSTER_NAME", "other")
    assert "there is no cluster 'other'" in sudo("kubeconfig").stderr


def test_every_setting_of_the_cluster_is_passed_on() -> None:
    page = (SOURCES.parent / "docs" / "how-to" / "local-cluster.md").read_text()
    documented = set(re.findall(r"`(MODELPIER_CLUSTER_[A-Z_]+)`", page))
    assert {"MODELPIER_CLUSTER_NAME", "MODELPIER_CLUSTER_KUBELET_FEATURE_GATES"} < documented
    assert passed_on(dict.fromkeys([*documented, "LD_PRELOAD"], "x")) == dict.fromkeys(documented, "x")


def test_what_the_caller_adds_goes_with_them(ordinary_user: Path, sudo: Sudo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPIER_CLUSTER_NAME", "one")
    assert "no cluster 'two'" in sudo("kubeconfig", extra={"MODELPIER_CLUSTER_NAME": "two"}).stderr


def test_credentials_are_in_no_command_line(ordinary_user: Path, sudo: Sudo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any user reads those in /proc, and sudo writes them into a log."""
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:secret@mirror.example.com/simple")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy.example.com:3128")
    sudo("kubeconfig")
    assert "secret" not in (ordinary_user / "argv").read_text()
    assert (ordinary_user / "mode").read_text().split() == ["600"]
    assert not list((ordinary_user / "state").iterdir()), "root removes the file as soon as it has read it"


def test_what_was_written_is_what_root_takes(tmp_path: Path) -> None:
    environment = {"PIP_INDEX_URL": "https://me:secret@mirror.example.com", "PATH": "/a:/b", "HTTP_PROXY": "\udcff"}
    path = write_environment(tmp_path, environment)
    assert take_environment(path, str(os.getuid())) == environment
    assert not path.exists()


def test_a_password_that_was_not_given_leaves_nothing_for_long(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait(10)
    (tmp_path / f".environment-{ended.pid}").write_text("{}")
    (tmp_path / f".environment-{os.getppid()}").write_text("{}")  # this one still waits for its password
    path = write_environment(tmp_path, {})
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, f".environment-{os.getppid()}"}


def another_user(path: Path) -> str:
    return str(path.stat().st_uid + 1)


def readable(path: Path) -> str:
    path.chmod(0o640)
    return str(os.getuid())


def link(path: Path) -> str:
    path.rename(path.with_name("real"))
    path.symlink_to("real")
    return str(os.getuid())


def pipe(path: Path) -> str:
    path.unlink()
    os.mkfifo(path, 0o600)
    return str(os.getuid())


@pytest.mark.parametrize("spoil", [another_user, readable, link, pipe], ids=lambda spoil: spoil.__name__)
def test_a_file_that_may_be_anybodys_is_refused(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    path = write_environment(tmp_path, {"PATH": "/x"})
    caller = spoil(path)
    with pytest.raises(ClusterError, match=rf"{path.name} .*user {caller}"):
        take_environment(path, caller)
    assert path.is_symlink() or path.exists()


def test_root_takes_nothing_without_sudo(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="SUDO_UID is not set"):
        take_environment(write_environment(tmp_path, {}), None)


def test_a_folder_of_others_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"must be yours.*set MODELPIER_CLUSTER_STATE"):
        write_environment(tmp_path / "gone", {})


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
