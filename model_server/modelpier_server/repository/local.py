"""Models that lie in a folder of this machine: found, checked and hashed where they are. Used for `file` and `pvc`,
and by `blobs`.

Other writers may reach these files (a volume that several pods mount), hence `Stamp`: what was hashed must be what
was loaded.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from modelpier_server.contract import FailureReason
from modelpier_server.errors import ModelError
from modelpier_server.repository.retry import Stopped

MOST_FILES = 1000
PIECE = 1 << 20


@dataclass(frozen=True)
class Stamp:
    """Changes when a file is written to or replaced."""

    inode: int
    size: int
    changed: int
    """Nanoseconds: of the inode (ctime), because mtime can be set back."""

    @classmethod
    def of(cls, path: Path) -> Stamp:
        about = path.stat()
        return cls(about.st_ino, about.st_size, about.st_ctime_ns)


@dataclass(frozen=True)
class Hashed:
    digest: str
    size: int
    stamps: Mapping[Path, Stamp]


def within(root: Path, relative: str, shown: str) -> Path:
    """The real path of `relative` below `root`. Raises ModelError when there is none or it lies outside."""
    try:
        path = (root / relative).resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(FailureReason.MODEL_NOT_FOUND, f"{shown}: no such file; check the uri") from error
    except (OSError, RuntimeError) as error:
        raise ModelError(FailureReason.DOWNLOAD_FORBIDDEN, f"{shown}: cannot be reached: {error}") from error
    if not path.is_relative_to(root.resolve()):
        raise ModelError(FailureReason.MODEL_INVALID, f"{shown}: a symbolic link leads out of {root.name}")
    return path


def hash_file(path: Path, shown: str, stop: threading.Event) -> Hashed:
    """`sha256:...` of the bytes. Raises ModelError or Stopped."""
    try:
        before = Stamp.of(path)
        value = _sha256(path, shown, stop)
    except PermissionError as error:
        raise ModelError(
            FailureReason.DOWNLOAD_FORBIDDEN, f"{shown}: the server's user may not read it; check owner and mode"
        ) from error
    except OSError as error:
        raise ModelError(FailureReason.DOWNLOAD_FAILED, f"{shown}: cannot be read: {error.strerror}") from error
    return Hashed(f"sha256:{value}", before.size, {path: before})


def hash_folder(root: Path, shown: str, stop: threading.Event) -> Hashed:
    """`sha256:...` of the listing of all files below `root`. Raises ModelError or Stopped."""
    found = {name: hash_file(path, f"{shown}{name}", stop) for name, path in files(root, shown).items()}
    return Hashed(
        digest=listing_digest((name, h.digest.removeprefix("sha256:")) for name, h in found.items()),
        size=sum(h.size for h in found.values()),
        stamps={path: stamp for h in found.values() for path, stamp in h.stamps.items()},
    )


def listing_digest(entries: Iterable[tuple[str, str]]) -> str:
    """Digest of a folder from (path relative to it, sha256 in hex) of each file: of the sorted lines `path NUL hex
    LF`.
    """
    lines = sorted(f"{path}\0{sha256}\n".encode() for path, sha256 in entries)
    return f"sha256:{hashlib.sha256(b''.join(lines)).hexdigest()}"


def the_model(names: Iterable[str], shown: str) -> str:
    """The one top-level .onnx file of a folder. Raises ModelError."""
    found = sorted(n for n in names if n.endswith(".onnx") and "/" not in n)
    if len(found) == 1:
        return found[0]
    what = f"holds {', '.join(found[:5])}" if found else "holds no .onnx file"
    raise ModelError(FailureReason.MODEL_INVALID, f"{shown}: {what}; a model's folder has exactly one at its top")


def files(root: Path, shown: str) -> dict[str, Path]:
    """Real paths of all files below `root` by their name relative to it; links must stay inside."""
    if not root.is_dir():
        raise ModelError(FailureReason.MODEL_NOT_FOUND, f'{shown}: not a folder; a file\'s uri does not end in "/"')
    found: dict[str, Path] = {}
    for folder, folders, names in os.walk(root, onerror=_refuse(shown)):
        for name in (*folders, *names):
            relative = (Path(folder) / name).relative_to(root).as_posix()
            path = within(root, relative, f"{shown}{relative}")
            if name in names or path.is_file():
                found[relative] = path
        if len(found) > MOST_FILES:
            raise ModelError(FailureReason.MODEL_INVALID, f"{shown}: has more than {MOST_FILES} files")
    return found


def _refuse(shown: str) -> Callable[[OSError], NoReturn]:
    """What os.walk calls where it cannot look."""

    def refuse(error: OSError) -> NoReturn:
        raise ModelError(FailureReason.DOWNLOAD_FORBIDDEN, f"{shown}: cannot be listed: {error.strerror}") from error

    return refuse


def _sha256(path: Path, shown: str, stop: threading.Event) -> str:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(PIECE))
    # O_NONBLOCK: opening a pipe without a writer would otherwise wait for ever.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ModelError(FailureReason.MODEL_INVALID, f"{shown}: not a regular file")
        while size := file.readinto(buffer):
            if stop.is_set():
                raise Stopped
            digest.update(buffer[:size])
    return digest.hexdigest()
