"""Which models were at work when the process before this one died.

A model that runs in the server's own process can take it down, and a kubelet then starts a new one on the same volume,
which would load the same model again. `bringup` notes here, on disk, what it is about to load and to warm up; what
stands there at the next start has not come back from it. Of candidates that serve it is also known whether a run was
under way (`Mark`); of required ones it is not: nothing else could be done for them than what the kubelet does.

Only one process writes into a folder at a time. A journal that cannot be written keeps nobody from serving.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import mmap
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from modelpier_server.contract import PlannedModel, Role

MOST_CRASHES = 8
"""Times that are kept of one model: more than it gets."""
MOST_MODELS = 1024
LARGEST = 1 << 21
"""Bytes of a journal that is read: MOST_MODELS entries are shorter."""
SLOTS = mmap.PAGESIZE

log = logging.getLogger(__name__)


class Step(StrEnum):
    LOADING = "loading"
    WARMING = "warming"
    TESTING = "testing"
    SERVING = "serving"
    HANGING = "hanging"
    APART = "apart"


_WORDS = {
    Step.LOADING: "ended while it loaded the model",
    Step.WARMING: "ended while it warmed the model up",
    Step.TESTING: "ended while it ran the model's golden tests",
    Step.SERVING: "ended while it ran the model",
    Step.HANGING: "had to be ended: a run of the model did not end",
    Step.APART: "saw the model's own process end",
}


@dataclass(frozen=True)
class Entry:
    """A model at work or, with times, one that did not come back from it."""

    revision: str
    digest: str
    wishes: str
    """Hash of all that its plan says of it, but for its share of traffic and its digest."""
    step: Step
    slot: int = -1
    at: tuple[float, ...] = ()
    """Seconds since 1970: clocks of processes do not go on."""

    def means(self, model: PlannedModel) -> bool:
        """Whether `model` is the one of this entry: to pin the digest that was loaded changes nothing."""
        return self.wishes == _wishes(model) and model.digest in {None, self.digest}

    @property
    def text(self) -> str:
        times = f" ({len(self.at)} times)" if len(self.at) > 1 else ""
        return f"the server's process {_WORDS[self.step]}{times}"


class Mark:
    """A byte that outlives the process: whether runs of one model are under way. Costs a fraction of a microsecond."""

    def __init__(self, memory: mmap.mmap, slot: int) -> None:
        self._memory, self._slot = memory, slot
        self._runs = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._runs += 1
            self._memory[self._slot] = 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._runs -= 1
            if not self._runs:
                self._memory[self._slot] = 0


class Journal:
    """`folder` None: nobody starts this process again on the same volume, and nothing is kept.

    `past`, `keep`, `mark` and `leave` never wait for the disk; the others do.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._working: dict[str, Entry] = {}
        self._crashes: dict[str, Entry] = {}
        self._slots: dict[str, int] = {}
        self._generation = 0
        self._closed = False
        self._state, self._disk = threading.Lock(), threading.Lock()
        self._memory: mmap.mmap | None = None
        if folder is not None:
            with self._complaining():
                folder.mkdir(parents=True, exist_ok=True)
                self._read(folder)
                self._memory = _marks(folder)
            self._write()

    # -------------------------------------------------------------------------------------------- what was
    def past(self, model: PlannedModel) -> Entry | None:
        """How it brought earlier processes down; None if it did not."""
        found = self._crashes.get(model.revision)
        return found if found is not None and found.means(model) else None

    def keep(self, models: Iterable[PlannedModel], generation: int) -> None:
        """A plan came: whatever it no longer holds is forgotten. One that is older than what was seen forgets nothing:
        a mounted plan lags behind a pushed one.
        """
        if generation < self._generation:
            return
        with self._state:
            self._generation = generation
            wanted = {model.revision for model in models}
            self._crashes = {name: entry for name, entry in self._crashes.items() if name in wanted}

    # -------------------------------------------------------------------------------------------- what is
    def begin(self, model: PlannedModel, digest: str, step: Step) -> None:
        self._enter(Entry(model.revision, digest, _wishes(model), step))

    def mark(self, model: PlannedModel) -> Mark | None:
        """For the runs of what is not required; None where their end changes nothing."""
        memory = self._memory
        if memory is None or model.role is Role.REQUIRED:
            return None
        with self._state:
            used = {*self._slots.values()}
            slot = next((slot for slot in range(SLOTS) if slot not in used), None)
            if slot is None:
                return None
            self._slots[model.revision] = slot
            memory[slot] = 0
        return Mark(memory, slot)

    def serve(self, model: PlannedModel, digest: str) -> None:
        """It serves from now on."""
        slot = self._slots.get(model.revision)
        if slot is None:
            self.end(model.revision)
        else:
            self._enter(Entry(model.revision, digest, _wishes(model), Step.SERVING, slot))

    def end(self, revision: str) -> None:
        """It is at work no more."""
        self.leave(revision)
        self._write()

    def leave(self, revision: str) -> None:
        """As `end`, but what is on disk may wait for the next change: its mark is not set."""
        with self._state:
            if not self._closed:
                self._working.pop(revision, None)
                self._slots.pop(revision, None)

    def crashed(self, model: PlannedModel, digest: str, step: Step) -> None:
        """A process of its own ended: the next server's process must know it, too."""
        with self._state:
            self._count(Entry(model.revision, digest, _wishes(model), step), time.time())
        self._write()

    def close(self, hanging: Iterable[tuple[PlannedModel, str]] = ()) -> None:
        """The process ends in order, and nobody is to blame but models (with their digests) whose runs do not end."""
        found = [Entry(model.revision, digest, _wishes(model), Step.HANGING) for model, digest in hanging]
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._working = {entry.revision: entry for entry in found}
        self._write()

    # -------------------------------------------------------------------------------------------- on disk
    def _enter(self, entry: Entry) -> None:
        with self._state:
            if self._closed or len(self._working) >= MOST_MODELS:
                return
            self._working[entry.revision] = entry
        self._write()

    def _count(self, entry: Entry, now: float) -> None:
        before = self._crashes.get(entry.revision)
        same = before is not None and (before.wishes, before.digest) == (entry.wishes, entry.digest)
        at = (*(before.at if before is not None and same else ()), now)[-MOST_CRASHES:]
        self._crashes[entry.revision] = replace(entry, slot=-1, at=at)
        while len(self._crashes) > MOST_MODELS:
            del self._crashes[next(iter(self._crashes))]

    def _read(self, folder: Path) -> None:
        try:
            with (folder / "journal.json").open("rb") as file:
                data = json.loads(file.read(LARGEST))
            marks = (folder / "active").read_bytes() if data["boot"] == _boot() else b""
            self._generation = int(data["generation"])
            self._crashes = {entry.revision: entry for entry in map(_entry, data["crashes"])}
            working = [*map(_entry, data["working"])]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            log.warning("the crash journal cannot be read, and begins anew", extra={"error": str(error)})
            return
        now = time.time()
        for entry in working:
            if entry.step is not Step.SERVING or any(marks[entry.slot : entry.slot + 1]):
                self._count(entry, now)
                about = {"revision": entry.revision, "digest": entry.digest, "step": entry.step.value}
                log.warning("the last process did not come back from a model", extra=about)

    def _write(self) -> None:
        folder = self._folder
        if folder is None:
            return
        with self._disk, self._complaining():
            with self._state:
                data = {
                    "boot": _boot(),
                    "generation": self._generation,
                    "working": [asdict(entry) for entry in self._working.values()],
                    "crashes": [asdict(entry) for entry in self._crashes.values()],
                }
            new = folder / "journal.new"
            with new.open("wb") as file:
                file.write(json.dumps(data).encode())
                file.flush()
                os.fsync(file.fileno())
            new.replace(folder / "journal.json")
            _sync(folder)

    @contextlib.contextmanager
    def _complaining(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            log.warning("the crash journal cannot be written", extra={"error": str(error)})


def _marks(folder: Path) -> mmap.mmap:
    """Zeros, with room on the disk: a page without would end the process when it is written to."""
    with (folder / "active").open("w+b") as file:
        os.posix_fallocate(file.fileno(), 0, SLOTS)
        return mmap.mmap(file.fileno(), SLOTS)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entry(data: dict[str, Any]) -> Entry:
    """Raises ValueError, KeyError or TypeError."""
    at = tuple(float(moment) for moment in data["at"])[-MOST_CRASHES:]
    texts = (str(data["revision"]), str(data["digest"]), str(data["wishes"]))
    return Entry(*texts, Step(data["step"]), int(data["slot"]), at)


def _wishes(model: PlannedModel) -> str:
    what = asdict(replace(model, weight=0, digest=None))
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _boot() -> str:
    """Marks are not synced: after a restart of the machine, which is no model's fault, they mean nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
