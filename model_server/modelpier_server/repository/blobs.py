"""The cache of models by what they are: MODEL_DIR/blobs/sha256/<hex>/, one folder per model, filled by one rename.

A restarted container finds here what an earlier one has downloaded. A folder of its own per model, even for a single
file: a model's external data can then name nothing that belongs to another model.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from modelpier_server.repository.disk import Disk

FILE = "model.onnx"
"""Name of a model that is a single file."""
_NEW = ".new-"


class Blobs:
    """Counts who uses what, so that `sweep` frees only the rest."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._root = disk.root / "blobs" / "sha256"
        self._users: Counter[str] = Counter()
        self._lock = threading.Lock()

    def path(self, digest: str) -> Path:
        return self._root / digest.removeprefix("sha256:")

    def take(self, digest: str) -> Path | None:
        """The model's folder, in use from now on; None when it is not here."""
        with self._lock:
            if not self.path(digest).is_dir():
                return None
            self._users[digest] += 1
            return self.path(digest)

    def add(self, digest: str, files: Mapping[str, Path]) -> Path:
        """Moves the files (by name within the model) in; the model is in use from now on. Raises ModelError."""
        new = self._root / f"{_NEW}{digest.removeprefix('sha256:')}"
        with self._disk.errors(), self._lock:
            shutil.rmtree(new, ignore_errors=True)
            for name, source in files.items():
                target = new / name
                target.parent.mkdir(parents=True, exist_ok=True)
                source.replace(target)
            if self.path(digest).exists():
                shutil.rmtree(new)
            else:
                new.rename(self.path(digest))
                _sync_folder(self._root)
            self._users[digest] += 1
            return self.path(digest)

    def release(self, digest: str) -> None:
        with self._lock:
            self._users[digest] -= 1

    def drop(self, digest: str) -> None:
        """Removes bytes that turned out to be wrong."""
        with self._lock:
            self._users[digest] -= 1
            shutil.rmtree(self.path(digest), ignore_errors=True)

    def sweep(self) -> None:
        """Frees what nobody uses."""
        with self._lock:
            for folder in self._root.glob("*"):
                if self._users[f"sha256:{folder.name}"] <= 0:
                    shutil.rmtree(folder, ignore_errors=True)

    def clean(self) -> None:
        """Removes what a killed process left half moved in. Called at start-up."""
        for folder in self._root.glob(f"{_NEW}*"):
            shutil.rmtree(folder, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
