"""From a planned model to a path that can be loaded, with its digest computed and checked.

`lifecycle` calls `Repository.fetch` from worker threads. `file` and `pvc` are read where they are; all others go
through the cache.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from modelpier_server.contract import FailureReason, PlannedModel
from modelpier_server.errors import ModelError
from modelpier_server.repository import credentials, local, partial, uri
from modelpier_server.repository.blobs import FILE, Blobs
from modelpier_server.repository.disk import Disk
from modelpier_server.repository.known import Known
from modelpier_server.repository.retry import Retry

if TYPE_CHECKING:  # imported on first use: a laptop that serves a file needs no network client
    from modelpier_server.repository.download import Downloader
    from modelpier_server.repository.remote import Source

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Places:
    models: Disk
    """The cache; written to."""
    credentials: Path
    pvc: Path


@dataclass(frozen=True)
class Fetched:
    """A model that can be loaded from `path`."""

    path: Path
    digest: str
    size_bytes: int
    stamps: Mapping[Path, local.Stamp] = field(default_factory=dict)
    folder: Path | None = None
    """What the digest covers, where that is more than one file."""

    def check(self) -> None:
        """Called after loading. Raises ModelError(DIGEST_MISMATCH) when somebody wrote to the files meanwhile."""
        for path, stamp in self.stamps.items():
            try:
                same = local.Stamp.of(path) == stamp
            except OSError:
                same = False
            if not same:
                raise ModelError(FailureReason.DIGEST_MISMATCH, f"{path.name} was changed while it was being loaded")


class Repository:
    """`isolated`: a single file is loaded from where nothing else lies: its digest then covers all that is loaded."""

    def __init__(
        self, places: Places, environment: Mapping[str, str], *, isolated: bool, retry: Retry | None = None
    ) -> None:
        self._places = places
        self._environment = environment
        self._isolated = isolated
        self._retry = retry or Retry()
        self._blobs = Blobs(places.models)
        self._known = Known(places.models.root / "known")
        self._partials = places.models.root / "partial"
        self._loader: Downloader | None = None
        self._lock = threading.Lock()
        self._busy: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def clean(self) -> None:
        """Start-up: removes what earlier processes left behind and nobody can use."""
        self._blobs.clean()
        partial.clean(self._partials)
        shutil.rmtree(self._places.models.root / "views", ignore_errors=True)

    def close(self) -> None:
        if self._loader:
            self._loader.close()

    def release(self, digest: str) -> None:
        """The model with this digest is loaded no more; `sweep` may free it."""
        self._blobs.release(digest)

    def sweep(self) -> None:
        self._blobs.sweep()

    def fetch(self, model: PlannedModel, stop: threading.Event) -> Fetched:
        """Blocks until the model is there and its digest is the pinned one (any, when none is pinned).

        Raises ModelError, or retry.Stopped once `stop` is set.
        """
        if model.digest is not None and not _DIGEST.fullmatch(model.digest):
            raise ModelError(FailureReason.PLAN_INVALID, "digest: must be sha256: and 64 hexadecimal digits")
        try:
            address = uri.parse(model.uri)
            if address.scheme in {"file", "pvc"}:
                return self._in_place(address, model, stop)
            return self._cached(address, model, stop)
        except uri.UriError as error:
            raise ModelError(FailureReason.PLAN_INVALID, str(error)) from error

    # -------------------------------------------------------------------------------------------- where it is
    def _in_place(self, address: uri.ModelUri, model: PlannedModel, stop: threading.Event) -> Fetched:
        root, relative, folder = Path("/"), address.path.lstrip("/"), None
        if address.scheme == "pvc":
            root = self._places.pvc / address.authority
        path = local.within(root, relative, address.shown)
        if address.folder:
            folder, hashed = path, local.hash_folder(path, address.shown, stop)
            path = path / local.the_model(local.files(path, address.shown), address.shown)
        elif path.is_dir():
            raise ModelError(FailureReason.PLAN_INVALID, f'uri: {address.shown} is a folder: end it with "/"')
        else:
            hashed = local.hash_file(path, address.shown, stop)
            if self._isolated or model.digest:
                path = self._view(path)
        _compare(model.digest, hashed.digest, address.shown)
        return Fetched(path, hashed.digest, hashed.size, hashed.stamps, folder)

    def _view(self, path: Path) -> Path:
        """A link in a folder of its own: ONNX Runtime then refuses external data, of which the digest says nothing."""
        folder = self._places.models.root / "views" / _key(str(path))
        link = folder / FILE
        with self._places.models.errors(), self._lock:
            folder.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(path)
        return link

    # -------------------------------------------------------------------------------------------- through the cache
    def _cached(self, address: uri.ModelUri, model: PlannedModel, stop: threading.Event) -> Fetched:
        known = _origin(model)
        with self._lock:
            busy = self._busy[known]
        with busy:  # two models of one uri download it once
            if model.digest and (found := self._from_cache(model.digest, address, stop)):
                return found
            source = self._source(address, model.credentials)
            if address.folder:
                return self._download_folder(source, address, model, stop)
            return self._download_file(source, address, model, stop)

    def _from_cache(self, digest: str, address: uri.ModelUri, stop: threading.Event) -> Fetched | None:
        folder = self._blobs.take(digest)
        if folder is None:
            return None
        # Hashed again: a cache that outlives its process is an input like any other.
        path = folder / FILE
        if address.folder:
            hashed = local.hash_folder(folder, address.shown, stop)
            path = folder / local.the_model(local.files(folder, address.shown), address.shown)
        elif path.is_file():
            hashed = local.hash_file(path, address.shown, stop)
        else:
            hashed = local.Hashed("", 0, {})
        if hashed.digest == digest:
            return Fetched(path, digest, hashed.size, folder=folder if address.folder else None)
        self._blobs.drop(digest)
        return None

    def _download_file(
        self, source: Source, address: uri.ModelUri, model: PlannedModel, stop: threading.Event
    ) -> Fetched:
        if model.digest is None and (found := self._unchanged(source, address, model, stop)):
            return found
        part = partial.Partial(self._partials / _origin(model) / "0", self._places.models)
        got = self._downloader.file(source, "", part, stop)
        digest = f"sha256:{got.sha256}"
        self._check(model.digest, digest, address.shown, part)
        folder = self._blobs.add(digest, {FILE: part.data})
        part.reset()
        if got.tag:
            self._known.note(_origin(model), got.tag, digest)
        return Fetched(folder / FILE, digest, got.size)

    def _unchanged(
        self, source: Source, address: uri.ModelUri, model: PlannedModel, stop: threading.Event
    ) -> Fetched | None:
        """What was downloaded before, if the store still has the same."""
        noted = self._known.find(_origin(model))
        if noted is None or not self._blobs.path(noted[1]).is_dir():
            return None
        tag = self._downloader.tag(source, stop)
        return self._from_cache(noted[1], address, stop) if tag == noted[0] else None

    def _download_folder(
        self, source: Source, address: uri.ModelUri, model: PlannedModel, stop: threading.Event
    ) -> Fetched:
        names = _checked_names(self._downloader.retry.call(source.names, stop), address.shown)
        main = local.the_model(names, address.shown)
        parts = {n: partial.Partial(self._partials / _origin(model) / _key(n), self._places.models) for n in names}
        got = {name: self._downloader.file(source, name, part, stop) for name, part in parts.items()}
        digest = local.listing_digest((name, g.sha256) for name, g in got.items())
        self._check(model.digest, digest, address.shown, *parts.values())
        folder = self._blobs.add(digest, {name: part.data for name, part in parts.items()})
        for part in parts.values():
            part.reset()
        return Fetched(folder / main, digest, sum(g.size for g in got.values()), folder=folder)

    def _check(self, pinned: str | None, digest: str, shown: str, *parts: partial.Partial) -> None:
        try:
            _compare(pinned, digest, shown)
        except ModelError:
            for part in parts:
                part.reset()
            raise

    def _source(self, address: uri.ModelUri, name: str | None) -> Source:
        from modelpier_server.repository import remote  # noqa: PLC0415 - see TYPE_CHECKING

        return remote.open_source(address, credentials.read(self._places.credentials, name, self._environment))

    @property
    def _downloader(self) -> Downloader:
        from modelpier_server.repository.download import Downloader  # noqa: PLC0415 - see TYPE_CHECKING

        with self._lock:
            self._loader = self._loader or Downloader(self._retry)
            return self._loader


def _compare(pinned: str | None, computed: str, shown: str) -> None:
    if pinned is not None and pinned != computed:
        raise ModelError(
            FailureReason.DIGEST_MISMATCH,
            f"{shown}: has the digest {computed}, but {pinned} is pinned: it was overwritten",
        )


def _checked_names(names: list[str], shown: str) -> list[str]:
    """Names from a listing, which somebody else wrote. Raises ModelError."""
    wanted = [n for n in names if n and not n.endswith("/")]
    if not wanted:
        raise ModelError(FailureReason.MODEL_NOT_FOUND, f"{shown}: there is nothing below it; check the uri")
    if len(wanted) > local.MOST_FILES:
        raise ModelError(FailureReason.MODEL_INVALID, f"{shown}: has more than {local.MOST_FILES} files")
    for name in wanted:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.as_posix() != name or "\0" in name or "\\" in name:
            raise ModelError(FailureReason.MODEL_INVALID, f"{shown}: refused file name {name[:100]!r}")
    return wanted


def _origin(model: PlannedModel) -> str:
    """Whose view of which place: two identities may be shown different bytes at the same uri."""
    return _key(f"{model.uri} {model.credentials or ''}")


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
