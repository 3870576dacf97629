"""A file on its way in: preallocated bytes, a map of the ranges that have arrived, and what they were read from.

After a kill the next process goes on from the map. It does so only within the same boot of the machine: then every
byte that the map claims is in the page cache or on disk, whereas after a crash of the machine the map may have
reached the disk before the bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from modelpier_server.contract import FailureReason
from modelpier_server.errors import ModelError
from modelpier_server.repository.disk import Disk

KEEP_SECONDS = 24 * 3600.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Origin:
    """What a partial file's ranges belong to; it goes on only if all of this is the same."""

    tag: str
    size: int
    chunk: int
    boot: str


class Partial:
    """`folder` holds data, origin.json and ranges (one byte per range, 1: arrived)."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._disk = disk
        self.data = folder / "data"
        self._folder = folder
        self._ranges = folder / "ranges"
        self._origin = folder / "origin.json"
        self._fd = self._map_fd = -1

    def open(self, tag: str, size: int, chunk: int) -> None:
        """Goes on where an earlier process stopped when it read the same version; begins anew otherwise."""
        self.close()
        origin = Origin(tag, size, chunk, _boot_id())
        if self._read_origin() != origin:
            self.reset()
            self._disk.ensure(size)
        with self._disk.errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._map_fd = os.open(self._ranges, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if size:
                os.posix_fallocate(self._fd, 0, size)
            os.ftruncate(self._map_fd, -(-size // chunk))
            self._origin.write_text(json.dumps(asdict(origin)))

    def missing(self) -> list[int]:
        """Indices of the ranges that have not arrived."""
        have = os.pread(self._map_fd, os.fstat(self._map_fd).st_size, 0)
        return [i for i, arrived in enumerate(have) if not arrived]

    def write(self, index: int, offset: int, data: memoryview) -> None:
        """Called by several threads, each with ranges of its own."""
        with self._disk.errors():
            while data:
                done = os.pwrite(self._fd, data, offset)
                offset, data = offset + done, data[done:]
            os.pwrite(self._map_fd, b"\1", index)

    def read(self, start: int, end: int, piece: int = 1 << 20) -> Iterator[bytes]:
        while start < end:
            data = os.pread(self._fd, min(piece, end - start), start)
            if not data:
                raise ModelError(
                    FailureReason.DOWNLOAD_FAILED, f"{self.data.name}: shorter on disk than when it was written"
                )
            start += len(data)
            yield data

    def sync(self) -> None:
        with self._disk.errors():
            os.fsync(self._fd)

    def close(self) -> None:
        for fd in (self._fd, self._map_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._map_fd = -1

    def reset(self) -> None:
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read_origin(self) -> Origin | None:
        try:
            return Origin(**json.loads(self._origin.read_text()))
        except (OSError, ValueError, TypeError):
            return None


def clean(root: Path, now: float | None = None) -> None:
    """Start-up: removes what cannot be gone on with (partial files of another boot, unreadable, or a day old)."""
    oldest = (time.time() if now is None else now) - KEEP_SECONDS
    for origin in [*root.glob("*/*/origin.json")]:
        try:
            stale = origin.stat().st_mtime < oldest or json.loads(origin.read_text()).get("boot") != _boot_id()
        except (OSError, ValueError, AttributeError):
            stale = True
        if stale:
            shutil.rmtree(origin.parent, ignore_errors=True)
    for folder in root.glob("*"):
        if not any(folder.glob("*/origin.json")):
            shutil.rmtree(folder, ignore_errors=True)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"
