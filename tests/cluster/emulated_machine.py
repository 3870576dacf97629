"""Runs a whole cluster on an emulated machine with systemd and cgroup v2, whatever this machine has.

`python3 tests/cluster/emulated_machine.py` (root, Debian or Ubuntu, `apt-get install qemu-system-x86 debootstrap
e2fsprogs`; minutes without /dev/kvm): makes a Debian root file system once, copies the driver and its built programs
into it, boots it, runs `emulated_machine.sh` there and exits with its status. There is no network in the machine.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLUSTER = HERE.parent.parent / "cluster"
sys.path.insert(0, str(CLUSTER))

from modelpier_cluster.archive import scratch_archive  # noqa: E402
from modelpier_cluster.build import programs  # noqa: E402
from modelpier_cluster.paths import cache_root  # noqa: E402

SUITE = "bookworm"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "linux-image-cloud-amd64", "python3-minimal", "python3", "kmod", "curl"),
    *("runc", "iptables", "conntrack", "iproute2", "openssl", "procps", "util-linux", "ca-certificates"),
)
UNIT = """[Unit]
Description=The cluster's trial
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
Environment=HOME=/root MODELPIER_CLUSTER_PROGRAMS=/opt/programs
ExecStart=/bin/sh /opt/emulated_machine.sh
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
"""
# Without this capability KVM starts on machines that are virtual themselves, too.
PROCESSORS = {"kvm": "host,-arch-capabilities", "tcg": "max"}
SUCCESS = "THE TRIAL PASSED"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", default="4096", help="MiB of the emulated machine")
    parser.add_argument("--minutes", type=float, default=20, help="until it is switched off")
    available = "kvm" if Path("/dev/kvm").exists() else "tcg"
    parser.add_argument("--accelerator", choices=list(PROCESSORS), default=available, help="tcg works anywhere, slowly")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelpier-machine-") as folder:
        root = _root_file_system(Path(folder) / "root")
        disk = Path(folder) / "disk.img"
        _run("mkfs.ext4", "-q", "-d", str(root), str(disk), "8G")
        kernel, initial = _boot_files(root, Path(folder))
        shutil.rmtree(root)
        return _boot(disk, kernel, initial, options.accelerator, options.memory, options.minutes)


def _root_file_system(root: Path) -> Path:
    """A fresh copy of a Debian root (made once, kept in the cache) with the driver, its programs and the trial."""
    archive = cache_root() / f"emulated-machine-{SUITE}.tar"
    if not archive.exists():
        _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root))
        _run("chroot", str(root), "apt-get", "clean")
        _run("tar", "-C", str(root), "-cf", f"{archive}.partial", ".")
        Path(f"{archive}.partial").rename(archive)
    else:
        root.mkdir()
        _run("tar", "-C", str(root), "-xf", str(archive))
    shutil.copytree(CLUSTER / "modelpier_cluster", root / "opt/cluster/modelpier_cluster")
    for module in ("kube", "runtime", "tools"):
        (root / "opt/cluster" / module).mkdir()
    shutil.copy(CLUSTER / "cluster.py", root / "opt/cluster")
    shutil.copytree(programs(), root / "opt/programs")
    shutil.copy(HERE / "emulated_machine.sh", root / "opt")
    scratch_archive(root / "opt/probe.tar", "probe:1", ["/bin/pause"], {"bin/pause": programs() / "pause"})
    (root / "etc/systemd/system/trial.service").write_text(UNIT)
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    (wanted / "trial.service").symlink_to("../trial.service")
    # A login prompt would hang up the line that the trial writes to.
    (root / "etc/systemd/system/serial-getty@ttyS0.service").symlink_to("/dev/null")
    return root


def _boot_files(root: Path, folder: Path) -> tuple[Path, Path]:
    found = []
    for pattern in ("vmlinuz-*", "initrd.img-*"):
        source = max((root / "boot").glob(pattern))
        found.append(Path(shutil.copy(source, folder)))
    return found[0], found[1]


def _boot(disk: Path, kernel: Path, initial: Path, accelerator: str, memory: str, minutes: float) -> int:
    command = [
        *("qemu-system-x86_64", "-accel", accelerator, "-cpu", PROCESSORS[accelerator], "-smp", "2", "-m", memory),
        *("-nographic", "-no-reboot", "-nic", "none", "-kernel", str(kernel), "-initrd", str(initial)),
        *("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"),
        *("-append", "root=/dev/vda rw console=ttyS0 panic=1"),
    ]
    machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")
    passed = False
    alarm = threading.Timer(minutes * 60, machine.kill)
    alarm.start()
    try:
        assert machine.stdout is not None
        for line in machine.stdout:
            print(line, end="", flush=True)
            passed = passed or SUCCESS in line
    finally:
        alarm.cancel()
        machine.kill()
        machine.wait()
    return 0 if passed else 1


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=1800, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
