"""Optimised graphs on disk: a model that was loaded here before need not be optimised again.

`onnx.load` asks it on every load. It must pay: the first load of a model is an ordinary one and is timed, the second
one (of those that took long) also writes the graph, later ones use it, and when that turns out to be hardly faster the
graph is removed for good. Whatever is wrong with a kept graph, the model is loaded as if there were none.

A graph fits one machine type, one version of ONNX Runtime, the providers and options that it was made with, and the
bytes of the model: all are in its name. It is hashed before it is used, as models are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

LONG = 0.25
"""Seconds; a load that takes less is not worth a file."""
GAIN = 0.8
"""Share of the ordinary time that a load with a kept graph may take, hashing included."""
LARGEST = 1 << 30
"""Bytes of a model: beyond 2 GB no graph can be one file, and large models are better mapped from external data."""

log = logging.getLogger(__name__)


@dataclass
class Note:
    """What is known of one graph."""

    plain: float
    """Seconds of an ordinary load."""
    useless: bool = False
    sha256: str = ""
    """Of the kept graph; empty: there is none yet."""


class GraphCache:
    """Files in `folder`, of `limit` bytes together. `room` says whether the volume has so many bytes left."""

    def __init__(self, folder: Path, limit: int, room: Callable[[int], bool]) -> None:
        self._folder = folder
        self._limit = limit
        self._room = room

    def entry(self, digest: str, about: str) -> Entry:
        """Of a model with that digest; `about`: all else that its graph depends on."""
        name = hashlib.sha256(f"{digest} {about} {machine()}".encode()).hexdigest()[:32]
        return Entry(self, self._folder / name)

    def engines(self, digest: str) -> Path | None:
        """Where TensorRT keeps what it builds of the model with that digest. Its file names tell GPUs apart; all
        engines together take no more than the graphs may. None where there can be no folder.
        """
        place = self._folder / "engines" / hashlib.sha256(digest.encode()).hexdigest()[:32]
        try:
            place.mkdir(parents=True, exist_ok=True)
            os.utime(place)
            self._drop_engines(place)
        except OSError as error:
            log.warning("engines cannot be kept", extra={"error": str(error)})
            return None
        return place

    def _drop_engines(self, wanted: Path) -> None:
        """Those that were used longest ago go first; the wanted ones stay."""
        others = sorted((p for p in wanted.parent.iterdir() if p != wanted), key=lambda path: path.stat().st_mtime)
        used = sum(map(_size, (wanted, *others)))
        for other in others:
            if used <= self._limit:
                break
            used -= _size(other)
            shutil.rmtree(other, ignore_errors=True)

    def make_room(self, size: int) -> bool:
        """Removes graphs that were not used for longest. False where so many bytes cannot be had."""
        if size > self._limit or not self._room(size):
            return False
        graphs = sorted(self._folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime)
        sizes = {path: path.stat().st_size for path in graphs}
        used = sum(sizes.values())
        for path in graphs:
            if used + size <= self._limit:
                break
            Entry(self, path.with_suffix("")).forget()
            used -= sizes[path]
        return True


class Entry:
    """One graph: `path`.onnx and the note `path`.json."""

    def __init__(self, owner: GraphCache, path: Path) -> None:
        self._owner = owner
        self._graph = path.with_suffix(".onnx")
        self._file = path.with_suffix(".json")
        self.note = self._read()

    def kept(self) -> Path | None:
        """The graph, if there is one and it is whole."""
        if self.note is None or self.note.useless or not self.note.sha256:
            return None
        try:
            with self._graph.open("rb") as source:
                found = hashlib.file_digest(source, "sha256").hexdigest()
        except OSError:
            found = ""
        if found == self.note.sha256:
            with contextlib.suppress(OSError):
                self._graph.touch()
            return self._graph
        log.warning("a kept graph is not what was written: it is made again", extra={"file": str(self._graph)})
        self.forget()
        return None

    def target(self, size: int) -> Path | None:
        """Where this load is to write its graph, of a model of `size` bytes; None: nowhere."""
        note = self.note
        if note is None or note.useless or note.sha256 or note.plain < LONG or size > LARGEST:
            return None
        try:
            return self._graph.with_suffix(".new") if self._owner.make_room(size + size // 4) else None
        except OSError:
            return None

    def loaded(self, seconds: float) -> None:
        """An ordinary load took so long."""
        if self.note is None:
            self._write(Note(seconds))

    def written(self, path: Path) -> None:
        """A load has put its graph into `target`."""
        assert self.note is not None
        try:
            with path.open("rb") as source:
                digest = hashlib.file_digest(source, "sha256").hexdigest()
            path.replace(self._graph)
            self._write(Note(self.note.plain, sha256=digest))
        except OSError as error:
            log.warning("a graph could not be kept", extra={"error": str(error)})
            self.abandon(path)

    def abandon(self, path: Path) -> None:
        """What lies at `target` is worth nothing."""
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    def used(self, seconds: float) -> None:
        """A load with the kept graph took so long, hashing included."""
        assert self.note is not None
        if seconds > GAIN * self.note.plain:
            self.forget()
            self._write(Note(self.note.plain if self.note else seconds, useless=True))

    def forget(self) -> None:
        for path in (self._graph, self._file):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _read(self) -> Note | None:
        try:
            value = json.loads(self._file.read_text())
            return Note(float(value["plain"]), bool(value["useless"]), str(value["sha256"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, note: Note) -> None:
        """Best effort, and whole or not at all."""
        self.note = note
        new = self._file.with_suffix(".json.new")
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(asdict(note)))
            new.replace(self._file)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


@cache
def machine() -> str:
    """What kernels are chosen by: the graph of one processor may be wrong for another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    wanted = ("flags", "Features", "model name", "CPU part")
    found = sorted({line for line in lines if line.startswith(wanted)})
    return hashlib.sha256("\n".join((platform.machine(), *found)).encode()).hexdigest()[:16]
