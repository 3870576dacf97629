"""One object of a `remote.Source` into a `partial.Partial`: ranges in parallel, hashed in order while they arrive.

At most WORKERS ranges of CHUNK bytes are in memory, whatever the size and however many downloads share the pool (8 x
16 MiB read at about twice boto3's rate at half its CPU).
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from modelpier_server.contract import FailureReason
from modelpier_server.errors import ModelError
from modelpier_server.repository.partial import Partial
from modelpier_server.repository.remote import Changed, Head, NoRanges, Source
from modelpier_server.repository.retry import Retry, Stopped

CHUNK = 16 * 1024 * 1024
WORKERS = 8
VERSIONS = 3
"""How often an object may change under a download before it is given up."""


@dataclass(frozen=True)
class Downloaded:
    sha256: str
    size: int
    tag: str
    """Empty when the server gives none that can be relied on."""


class Downloader:
    """Shared by all downloads of a process."""

    def __init__(self, retry: Retry | None = None, chunk: int = CHUNK, workers: int = WORKERS) -> None:
        self.retry = retry or Retry()
        self._chunk = chunk
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="ranges")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def file(self, source: Source, name: str, partial: Partial, stop: threading.Event) -> Downloaded:
        """Blocks until the object lies in `partial.data`, synced. Raises ModelError, or Stopped once `stop` is set."""
        try:
            for _ in range(VERSIONS):
                try:
                    return self._version(source, name, partial, stop)
                except Changed:
                    partial.reset()
        finally:
            partial.close()
        raise ModelError(FailureReason.DOWNLOAD_FAILED, f"{source.shown}: it keeps changing while it is downloaded")

    def tag(self, source: Source, stop: threading.Event) -> str:
        """The entity tag of a source that is one file; empty when there is none. Raises as `file`."""
        try:
            return self.retry.call(lambda: source.head("", 1), stop).tag
        except NoRanges:
            return ""

    def _version(self, source: Source, name: str, partial: Partial, stop: threading.Event) -> Downloaded:
        try:
            head = self.retry.call(lambda: source.head(name, self._chunk), stop)
        except NoRanges:
            return self.retry.call(lambda: self._stream(source, name, partial, stop), stop)
        partial.open(head.tag, head.size, self._chunk)
        if head.size:
            partial.write(0, 0, head.data)
        digest = self._ranges(source, name, partial, head, stop)
        partial.sync()
        return Downloaded(digest, head.size, head.tag)

    def _ranges(self, source: Source, name: str, partial: Partial, head: Head, stop: threading.Event) -> str:
        """Hashes range by range as they become complete; the bytes come back from the page cache."""
        ours = threading.Event()

        def fetch(index: int) -> None:
            if ours.is_set() or stop.is_set():
                raise Stopped
            start = index * self._chunk
            end = min(start + self._chunk, head.size)
            data = self.retry.call(lambda: source.range(name, start, end, head.tag), stop)
            partial.write(index, start, data)

        running: dict[int, Future[None]] = {i: self._pool.submit(fetch, i) for i in partial.missing()}
        digest = hashlib.sha256()
        try:
            for index in range(-(-head.size // self._chunk)):
                if index in running:
                    running[index].result()
                start = index * self._chunk
                for piece in partial.read(start, min(start + self._chunk, head.size)):
                    digest.update(piece)
        finally:
            # Whoever closes or resets the partial file next must find no thread of ours still writing to it.
            ours.set()
            for future in running.values():
                future.cancel()
            wait(running.values())
        return digest.hexdigest()

    def _stream(self, source: Source, name: str, partial: Partial, stop: threading.Event) -> Downloaded:
        size, pieces = source.stream(name)
        partial.reset()
        partial.open("", size, self._chunk)
        digest, offset = hashlib.sha256(), 0
        for piece in pieces:
            if stop.is_set():
                raise Stopped
            partial.write(offset // self._chunk, offset, piece)
            digest.update(piece)
            offset += len(piece)
        if offset != size:
            raise ModelError(FailureReason.DOWNLOAD_FAILED, f"{source.shown}: {offset} bytes came instead of {size}")
        partial.sync()
        return Downloaded(digest.hexdigest(), size, "")
