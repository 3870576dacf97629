from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelpier_server.contract import PlannedModel
from modelpier_server.repository import download
from modelpier_server.repository.disk import Disk
from modelpier_server.repository.fetch import Places, Repository
from modelpier_server.repository.retry import Retry
from support.web import Web, serving

QUICK = Retry(attempts=3, base=0.001, cap=0.002)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving(Web()) as web:
        yield web


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(Disk(tmp_path / "models"), tmp_path / "credentials", tmp_path / "pvc")


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes per range: small files are then read in many."""
    monkeypatch.setattr(download, "CHUNK", 1000)
    monkeypatch.setattr(download.Downloader.__init__, "__defaults__", (None, 1000, 4))
    return 1000


@pytest.fixture
def repository(places: Places) -> Iterator[Repository]:
    made = Repository(places, {}, isolated=True, retry=QUICK)
    yield made
    made.close()


@pytest.fixture
def planned() -> Callable[..., PlannedModel]:
    def make(uri: str, digest: str | None = None, credentials: str | None = None) -> PlannedModel:
        return PlannedModel("m", "m-1", "1", uri, digest=digest, credentials=credentials)

    return make
