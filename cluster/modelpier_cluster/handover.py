"""The caller's environment on its way through sudo, in a file that only the caller and root can read.

sudo drops the environment, and what stands on its command line any user of the machine reads in /proc and the
administrator in a log: a package mirror's address or a proxy's has credentials in it. privilege.py writes the file
before it calls sudo, the command line takes it as the first thing that root does.
"""

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from modelpier_cluster.errors import ClusterError

AS_ROOT = "_as-root"
"""The command line's first argument behind sudo; the file follows, then the verb as it was typed."""
PREFIX = ".environment-"
SETTINGS = "MODELPIER_CLUSTER_"
PASSED_ON = (
    *("DEBIAN_MIRROR", "PATH"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("PIP_CONFIG_FILE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_TIMEOUT", "PIP_CERT"),
)
"""Without these a machine behind a proxy or a mirror builds as its user and not as root."""


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """What of the caller's environment root needs: the cluster's own settings, all of them, and PASSED_ON."""
    return {name: value for name, value in environment.items() if name.startswith(SETTINGS) or name in PASSED_ON}


def write_environment(folder: Path, environment: Mapping[str, str]) -> Path:
    """Write `environment` into a new file of `folder`, which is named after this process: sudo will take its place."""
    path = folder / f"{PREFIX}{os.getpid()}"
    try:
        _remove_untaken(folder)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ClusterError(
            f"the folder {folder} must be yours to write in ({error.strerror}): "
            "set MODELPIER_CLUSTER_STATE to another, or become root yourself"
        ) from error
    with os.fdopen(descriptor, "w") as stream:
        json.dump(dict(environment), stream)
    return path


def _remove_untaken(folder: Path) -> None:
    """A password that is not given leaves a file that nobody takes."""
    for path in folder.glob(f"{PREFIX}*"):
        if not Path("/proc", path.name.removeprefix(PREFIX)).exists():
            with contextlib.suppress(OSError):  # another user's
                path.unlink()


def take_environment(path: Path, caller: str | None) -> dict[str, str]:
    """Read and remove the file that the user `caller` (of SUDO_UID) has written.

    Raises ClusterError when it can be anybody else's work, or anybody else could have read it.
    """
    if caller is None or not caller.isdecimal():
        raise ClusterError("SUDO_UID is not set: only sudo may call this, type the verb itself")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ClusterError(f"{path} does not hold the environment of user {caller}: {error.strerror}") from error
    with os.fdopen(descriptor) as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != int(caller) or found.st_mode & 0o077:
            raise ClusterError(f"{path} must be a file that belongs to user {caller} and that nobody else can read")
        path.unlink()
        environment: dict[str, str] = json.load(stream)
    return environment
