"""A virtual environment for each peer, made from `peers/NAME.txt` on first use and kept in the user's cache.

Peers ask for versions of the same packages that exclude each other, and none of them belongs into ours. `contestants`
asks for an environment; whoever cannot be installed is left out with the reason.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from modelpier_cluster.paths import cache_root

PEERS = Path(__file__).parent / "peers"
INSTALL_SECONDS = 1200.0
MESSAGE = 500
"""Characters of an installer's complaint that the table shows."""
SHORT = 12
"""Digits of the key in a folder's name."""


class NotInstallable(RuntimeError):  # noqa: N818 - the reason why somebody is left out
    """The text is the reason, in one line."""


def content_key(pins: str, python: str) -> str:
    """Changes with any pinned version and with the interpreter."""
    return hashlib.sha256(f"{python}\0{pins}".encode()).hexdigest()[:SHORT]


def environment(name: str, python: str) -> Path:
    """The folder of the environment; `python`: its version, as "3.11". Raises NotInstallable."""
    pins = PEERS / f"{name}.txt"
    folder = cache_root() / "bench" / f"{name}-{content_key(pins.read_text(), python)}"
    if (folder / "complete").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # an installation that was broken off
    folder.parent.mkdir(parents=True, exist_ok=True)
    _uv("venv", "--quiet", "--no-python-downloads", "--python", str(interpreter(python)), str(folder))
    _uv(
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--python",
        str(folder / "bin" / "python"),
        "-r",
        str(pins),
    )
    (folder / "complete").touch()
    return folder


def interpreter(version: str) -> Path:
    """Ours, one on the path, or one that pyenv keeps. Raises NotInstallable."""
    if sys.version.startswith(f"{version}."):
        return Path(sys.executable)
    name = f"python{version}"
    kept = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for candidate in (shutil.which(name), *sorted(kept.glob(f"{version}.*/bin/{name}"))):
        # A shim of pyenv may lie on the path and lead nowhere.
        if (
            candidate
            and subprocess.run([candidate, "-V"], capture_output=True, timeout=30, check=False).returncode == 0
        ):
            return Path(candidate)
    raise NotInstallable(f"needs Python {version}, which is not on this machine")


def library_folder(folder: Path) -> str:
    """Where libpython of the environment's interpreter lies: programs that embed Python look for it."""
    ask = "import sysconfig; print(sysconfig.get_config_var('LIBDIR') or '')"
    found = subprocess.run(
        [folder / "bin" / "python", "-c", ask], capture_output=True, text=True, timeout=30, check=True
    )
    return found.stdout.strip()


def _uv(*arguments: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    # Ours would be taken for the environment that is meant.
    clean = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    try:
        result = subprocess.run(
            [uv, *arguments], capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False, env=clean
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstallable(str(error)) from error
    if result.returncode:
        # uv breaks its lines at the width of a terminal, in the middle of a sentence.
        said = " ".join(result.stderr.split())[:MESSAGE]
        raise NotInstallable(said or f"uv {arguments[0]} ended with status {result.returncode}")
