"""The volume of the model cache: room is asked for before a download, and a full disk is told from a broken one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelpier_server.contract import FailureReason
from modelpier_server.errors import ModelError

SPARE = 64 * 1024 * 1024
"""Bytes that a download leaves free: logs and the termination message need some."""


@dataclass(frozen=True)
class Disk:
    """`limit`: bytes that `root` may hold (0: all that the volume has): a kubelet evicts a pod that takes more.

    `spare`: a folder of what can be made again, which has to go before a download is refused.
    """

    root: Path
    limit: int = 0
    spare: Path | None = None

    def ensure(self, size: int) -> None:
        """Raises ModelError(DISK_FULL) before a download rather than in the middle of it."""
        free = self.free()
        if free < size and self.spare is not None and self.spare.exists():
            shutil.rmtree(self.spare, ignore_errors=True)
            free = self.free()
        if free < size:
            raise ModelError(
                FailureReason.DISK_FULL,
                f"the model takes {_mebibytes(size)} and the model cache has room for {_mebibytes(max(0, free))}; "
                "give it more storage",
            )

    def free(self) -> int:
        """Bytes that downloads may still take."""
        there = next(p for p in (self.root, *self.root.parents) if p.exists())
        space = os.statvfs(there)
        free = space.f_bavail * space.f_frsize - SPARE
        return min(free, self.limit - self._used()) if self.limit else free

    def _used(self) -> int:
        return sum(
            _blocks(path) * 512
            for folder, _, names in os.walk(self.root)
            for path in (Path(folder) / name for name in names)
        )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns a full or broken disk into ModelError."""
        try:
            yield
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise ModelError(
                    FailureReason.DISK_FULL, "the volume of the model cache is full; give it more storage"
                ) from error
            raise ModelError(
                FailureReason.DOWNLOAD_FAILED, f"cannot write into the model cache {self.root}: {error.strerror}"
            ) from error


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks
    except FileNotFoundError:  # another download has moved it meanwhile
        return 0


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
