"""Runs a system program and turns its failure into a ClusterError with what it said. Used by what needs root."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from modelpier_cluster.errors import ClusterError

TIMEOUT_SECONDS = 60.0
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin")


def search_path(*first: str) -> str:
    """The PATH with `first` at its beginning and the system's folders at its end: sbin is not in the PATH of Debian's
    users, whom sudo leaves with theirs.
    """
    folders = [*first, *(folder for folder in os.environ.get("PATH", "").split(":") if folder)]
    return ":".join([*folders, *(folder for folder in SYSTEM_FOLDERS if folder not in folders)])


def run(*command: str | Path, timeout: float = TIMEOUT_SECONDS) -> str:
    """The standard output; raises ClusterError when the command fails or takes longer than `timeout` seconds."""
    argv = [str(part) for part in command]
    try:
        result = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
    except FileNotFoundError as error:
        raise ClusterError(f"the program {argv[0]} is missing") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{' '.join(argv)} took longer than {timeout:.0f} s") from error
    if result.returncode:
        raise ClusterError(f"{' '.join(argv)} failed: {(result.stderr or result.stdout).strip()}")
    return result.stdout


def succeeds(*command: str | Path, timeout: float = TIMEOUT_SECONDS) -> bool:
    """Whether the command ran well; what it says is dropped."""
    return call(list(map(str, command)), timeout) == 0


def call(argv: Sequence[str], timeout: float = TIMEOUT_SECONDS) -> int:
    result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    return result.returncode
