from __future__ import annotations

from pathlib import Path

import pytest

from modelpier_server.errors import ModelError
from modelpier_server.repository.blobs import Blobs
from modelpier_server.repository.disk import Disk


def fill(blobs: Blobs, tmp_path: Path, digest: str, data: bytes = b"x") -> Path:
    source = tmp_path / "incoming"
    source.write_bytes(data)
    return blobs.add(digest, {"model.onnx": source})


def test_only_what_nobody_uses_is_freed(tmp_path: Path) -> None:
    blobs = Blobs(Disk(tmp_path))
    fill(blobs, tmp_path, "sha256:aa")
    fill(blobs, tmp_path, "sha256:bb")
    assert blobs.take("sha256:aa") is not None
    blobs.release("sha256:aa")
    blobs.release("sha256:bb")
    blobs.sweep()
    assert blobs.take("sha256:bb") is None
    assert blobs.take("sha256:aa") == tmp_path / "blobs" / "sha256" / "aa"


def test_the_same_model_twice_is_kept_once(tmp_path: Path) -> None:
    blobs = Blobs(Disk(tmp_path))
    assert fill(blobs, tmp_path, "sha256:aa") == fill(blobs, tmp_path, "sha256:aa")
    assert [p.name for p in (tmp_path / "blobs" / "sha256").iterdir()] == ["aa"]


def test_room_counts_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "held").write_bytes(b"x" * 100_000)
    Disk(tmp_path, limit=200_000).ensure(50_000)

    with pytest.raises(ModelError, match=r"room for 0\.1 MiB"):
        Disk(tmp_path, limit=200_000).ensure(150_000)


def test_what_can_be_made_again_goes_before_a_download_is_refused(tmp_path: Path) -> None:
    graphs = tmp_path / "graphs"
    graphs.mkdir()
    (graphs / "a.onnx").write_bytes(b"x" * 100_000)
    disk = Disk(tmp_path, 200_000, graphs)
    disk.ensure(50_000)
    assert graphs.exists()
    disk.ensure(150_000)
    assert not graphs.exists()
    with pytest.raises(ModelError):
        disk.ensure(250_000)
