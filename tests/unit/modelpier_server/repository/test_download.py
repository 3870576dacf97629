"""Fetching over HTTP: what arrives, what is asked for, what each fault becomes."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from modelpier_server.contract import FailureReason, PlannedModel
from modelpier_server.errors import ModelError
from modelpier_server.repository.credentials import Credentials
from modelpier_server.repository.disk import Disk
from modelpier_server.repository.download import Downloader
from modelpier_server.repository.fetch import Places, Repository
from modelpier_server.repository.partial import Partial
from modelpier_server.repository.remote import open_source
from modelpier_server.repository.retry import Retry, Stopped
from modelpier_server.repository.uri import parse
from support.web import Seen, Web, serving

Planned = Callable[..., PlannedModel]
DATA = random.Random(1).randbytes(10_500)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def reason(repository: Repository, model: PlannedModel) -> tuple[FailureReason, str]:
    with pytest.raises(ModelError) as caught:
        repository.fetch(model, threading.Event())
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 10_500])
def test_ranges_give_the_same_bytes(
    web: Web, repository: Repository, planned: Planned, stop: threading.Event, small_ranges: int, size: int
) -> None:
    web.files["/a/m.onnx"] = DATA[:size]
    got = repository.fetch(planned(f"{web.url}/a/m.onnx"), stop)
    assert got.path.read_bytes() == DATA[:size]
    assert (got.digest, got.size_bytes) == (digest(DATA[:size]), size)
    assert len(web.seen) == -(-size // small_ranges)
    assert all(seen.if_match == web.tag("/a/m.onnx") for seen in web.seen[1:])


@pytest.mark.parametrize(("ranges", "tags"), [(False, True), (False, False), (True, False)])
def test_without_ranges_or_tags_one_stream(
    web: Web,
    repository: Repository,
    planned: Planned,
    stop: threading.Event,
    small_ranges: int,
    ranges: bool,
    tags: bool,
) -> None:
    web.ranges, web.tags, web.files["/m.onnx"] = ranges, tags, DATA
    got = repository.fetch(planned(f"{web.url}/m.onnx"), stop)
    assert got.path.read_bytes() == DATA
    assert [seen.range for seen in web.seen] == ["bytes=0-999", ""]


def test_a_pinned_model_is_not_downloaded_again(
    web: Web, repository: Repository, places: Places, planned: Planned, stop: threading.Event
) -> None:
    web.files["/m.onnx"] = DATA
    model = planned(f"{web.url}/m.onnx", digest(DATA))
    first = repository.fetch(model, stop)
    web.seen.clear()
    after_restart = Repository(places, {}, isolated=True)
    after_restart.clean()
    assert after_restart.fetch(model, stop) == first
    assert web.seen == []


def test_a_damaged_cache_is_downloaded_again(
    web: Web, repository: Repository, planned: Planned, stop: threading.Event
) -> None:
    web.files["/m.onnx"] = DATA
    model = planned(f"{web.url}/m.onnx", digest(DATA))
    repository.fetch(model, stop).path.write_bytes(b"other")
    assert repository.fetch(model, stop).path.read_bytes() == DATA


def test_an_overwritten_model_is_refused_and_removed(
    web: Web, repository: Repository, places: Places, planned: Planned
) -> None:
    web.files["/m.onnx"] = DATA
    why, text = reason(repository, planned(f"{web.url}/m.onnx", digest(b"as it was")))
    assert why is FailureReason.DIGEST_MISMATCH
    assert digest(DATA) in text
    assert digest(b"as it was") in text
    assert [p for p in places.models.root.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize(
    ("status", "why", "requests"),
    [
        (401, FailureReason.DOWNLOAD_FORBIDDEN, 1),
        (403, FailureReason.DOWNLOAD_FORBIDDEN, 1),
        (404, FailureReason.MODEL_NOT_FOUND, 1),
        (410, FailureReason.MODEL_NOT_FOUND, 1),
        (400, FailureReason.DOWNLOAD_FAILED, 1),
        (429, FailureReason.DOWNLOAD_FAILED, 3),
        (500, FailureReason.DOWNLOAD_FAILED, 3),
        (503, FailureReason.DOWNLOAD_FAILED, 3),
        (0, FailureReason.DOWNLOAD_FAILED, 3),
    ],
)
def test_faults_become_reasons_without_secrets(
    web: Web, repository: Repository, planned: Planned, status: int, why: FailureReason, requests: int
) -> None:
    web.fault = lambda _seen: status
    found, text = reason(repository, planned(f"{web.url}/m.onnx?X-Amz-Signature=geheim"))
    assert found is why
    assert len(web.seen) == requests
    assert "/m.onnx" in text
    assert "geheim" not in text
    assert "boom" not in text
    assert str(status or "broke") in text


def test_nobody_listens(repository: Repository, planned: Planned) -> None:
    why, text = reason(repository, planned("http://127.0.0.1:1/m.onnx"))
    assert (why, "connection refused" in text) == (FailureReason.DOWNLOAD_FAILED, True)


def test_passing_faults_are_survived(
    web: Web, repository: Repository, planned: Planned, stop: threading.Event, small_ranges: int
) -> None:
    web.files["/m.onnx"] = DATA
    failed: set[str] = set()

    def once_per_range(seen: Seen) -> int | None:
        if seen.range in failed:
            return None
        failed.add(seen.range)
        return 503

    web.fault = once_per_range
    assert repository.fetch(planned(f"{web.url}/m.onnx"), stop).path.read_bytes() == DATA
    assert len(failed) == 11


def test_versions_are_never_mixed(
    web: Web, repository: Repository, planned: Planned, stop: threading.Event, small_ranges: int
) -> None:
    new = DATA[::-1]
    web.files["/m.onnx"] = DATA

    def overwrite(seen: Seen) -> None:
        if len(web.seen) == 4:
            web.files["/m.onnx"] = new

    web.before = overwrite
    assert repository.fetch(planned(f"{web.url}/m.onnx"), stop).path.read_bytes() == new


def test_a_server_that_ignores_if_match_is_found_out(
    web: Web, repository: Repository, planned: Planned, stop: threading.Event, small_ranges: int
) -> None:
    web.files["/m.onnx"] = DATA

    def overwrite(seen: Seen) -> None:
        seen.if_match = ""
        if len(web.seen) == 4:
            web.files["/m.onnx"] = DATA[::-1]

    web.before = overwrite
    assert repository.fetch(planned(f"{web.url}/m.onnx"), stop).path.read_bytes() == DATA[::-1]


def test_a_model_that_never_stays_the_same(
    web: Web, repository: Repository, planned: Planned, small_ranges: int
) -> None:
    def overwrite(seen: Seen) -> None:
        web.files["/m.onnx"] = random.Random(len(web.seen)).randbytes(5000)

    web.before = overwrite
    why, text = reason(repository, planned(f"{web.url}/m.onnx"))
    assert (why, "keeps changing" in text) == (FailureReason.DOWNLOAD_FAILED, True)


def test_goes_on_where_a_killed_process_stopped(
    web: Web, places: Places, planned: Planned, stop: threading.Event, small_ranges: int
) -> None:
    """The first process dies after some ranges: here, it stops for good at the first request past the fifth."""
    web.files["/m.onnx"] = DATA
    web.fault = lambda _seen: 403 if len(web.seen) > 5 else None
    first = Repository(places, {}, isolated=True, retry=Retry(1))
    with pytest.raises(ModelError):
        first.fetch(planned(f"{web.url}/m.onnx"), stop)
    had = {seen.range for seen in web.seen[:5]}
    web.seen.clear()
    web.fault = lambda _seen: None
    second = Repository(places, {}, isolated=True)
    second.clean()
    assert second.fetch(planned(f"{web.url}/m.onnx"), stop).path.read_bytes() == DATA
    again = {seen.range for seen in web.seen}
    assert len(again) <= 11 - 5 + 1
    assert again & had <= {"bytes=0-999"}  # the first range also asks which version is there


def test_begins_anew_when_the_object_changed_meanwhile(
    web: Web, places: Places, planned: Planned, stop: threading.Event, small_ranges: int
) -> None:
    web.files["/m.onnx"] = DATA
    web.fault = lambda _seen: 403 if len(web.seen) > 5 else None
    with pytest.raises(ModelError):
        Repository(places, {}, isolated=True).fetch(planned(f"{web.url}/m.onnx"), stop)
    web.fault = lambda _seen: None
    web.files["/m.onnx"] = DATA[::-1]
    got = Repository(places, {}, isolated=True).fetch(planned(f"{web.url}/m.onnx"), stop)
    assert got.path.read_bytes() == DATA[::-1]


def test_what_cannot_be_gone_on_with_is_cleaned(places: Places) -> None:
    root = places.models.root
    for name, origin in (("other-boot", '{"boot": "another"}'), ("broken", "{"), ("odd", "[]")):
        (root / "partial" / name / "0").mkdir(parents=True)
        (root / "partial" / name / "0" / "origin.json").write_text(origin)
    (root / "blobs" / "sha256" / ".new-abc").mkdir(parents=True)
    (root / "views" / "x").mkdir(parents=True)
    Repository(places, {}, isolated=True).clean()
    assert [p for p in root.rglob("*") if p.name not in {"partial", "blobs", "sha256"}] == []


def test_stops_when_asked(web: Web, repository: Repository, planned: Planned, small_ranges: int) -> None:
    web.files["/m.onnx"] = DATA
    stop = threading.Event()

    def ask(seen: Seen) -> None:
        if len(web.seen) == 3:
            stop.set()

    web.before = ask
    with pytest.raises(Stopped):
        repository.fetch(planned(f"{web.url}/m.onnx"), stop)
    assert len(web.seen) < 11


def test_room_is_asked_for_before_the_download(web: Web, tmp_path: Path, planned: Planned, small_ranges: int) -> None:
    web.files["/m.onnx"] = DATA
    repository = Repository(Places(Disk(tmp_path, limit=5000), tmp_path, tmp_path), {}, isolated=True)
    why, text = reason(repository, planned(f"{web.url}/m.onnx"))
    assert (why, "more storage" in text) == (FailureReason.DISK_FULL, True)
    assert len(web.seen) == 1


def test_a_full_volume(web: Web, tmp_path: Path, planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _offset: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    web.files["/m.onnx"] = DATA
    monkeypatch.setattr(os, "posix_fallocate", full)
    repository = Repository(Places(Disk(tmp_path), tmp_path, tmp_path), {}, isolated=True)
    assert reason(repository, planned(f"{web.url}/m.onnx"))[0] is FailureReason.DISK_FULL


def test_memory_is_bounded_by_the_workers(web: Web, tmp_path: Path) -> None:
    """At no moment more ranges are being read than there are workers."""
    lock, now, most = threading.Lock(), 0, 0
    web.files["/m.onnx"] = DATA
    gate = threading.Barrier(3, timeout=10)

    def count(seen: Seen) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        if 1 < len(web.seen) <= 4:
            gate.wait()  # three at once are reached
        with lock:
            now -= 1

    web.before = count
    source = open_source(parse(f"{web.url}/m.onnx"), Credentials())
    loader = Downloader(Retry(1), chunk=500, workers=3)
    partial = Partial(tmp_path / "models" / "x" / "0", Disk(tmp_path))
    assert loader.file(source, "", partial, threading.Event()).size == len(DATA)
    assert most == 3
    loader.close()


def test_redirects_do_not_carry_the_authorization_elsewhere(
    web: Web, places: Places, planned: Planned, stop: threading.Event
) -> None:
    with serving(Web(files={"/cdn/m.onnx": DATA})) as cdn:
        web.redirects["/m.onnx"] = cdn.url.replace("127.0.0.1", "localhost") + "/cdn/m.onnx"
        repository = Repository(places, {"HTTP_AUTHORIZATION": "Bearer geheim"}, isolated=True)
        assert repository.fetch(planned(f"{web.url}/m.onnx"), stop).path.read_bytes() == DATA
        assert {seen.authorization for seen in web.seen} == {"Bearer geheim"}
        assert {seen.authorization for seen in cdn.seen} == {""}


def test_two_models_of_one_uri_download_it_once(web: Web, repository: Repository, planned: Planned) -> None:
    web.files["/m.onnx"] = DATA
    model = planned(f"{web.url}/m.onnx", digest(DATA))
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(repository.fetch(model, threading.Event()).path.read_bytes()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [DATA] * 4
    assert len(web.seen) == 1


def test_an_unpinned_model_is_downloaded_again_only_when_it_changed(
    web: Web, repository: Repository, places: Places, planned: Planned, stop: threading.Event
) -> None:
    web.files["/m.onnx"] = DATA
    first = repository.fetch(planned(f"{web.url}/m.onnx"), stop)
    web.seen.clear()
    after_restart = Repository(places, {}, isolated=True)
    assert after_restart.fetch(planned(f"{web.url}/m.onnx"), stop) == first
    assert [seen.range for seen in web.seen] == ["bytes=0-0"]
    web.files["/m.onnx"] = DATA[::-1]
    assert after_restart.fetch(planned(f"{web.url}/m.onnx"), stop).digest == digest(DATA[::-1])
    after_restart.close()


def test_what_one_identity_was_shown_is_not_anothers(
    web: Web, places: Places, planned: Planned, stop: threading.Event, small_ranges: int
) -> None:
    """Neither as what is there unchanged, nor as the beginning of a download."""
    for name in ("a", "b", "c"):
        (places.credentials / name).mkdir(parents=True)
        (places.credentials / name / "HTTP_AUTHORIZATION").write_text(f"Bearer {name}")
    web.files["/m.onnx"] = DATA
    uri = f"{web.url}/m.onnx"
    repository = Repository(places, {}, isolated=True, retry=Retry(1))
    repository.fetch(planned(uri, credentials="a"), stop)
    web.seen.clear()
    web.fault = lambda _seen: 403 if len(web.seen) > 5 else None
    with pytest.raises(ModelError):
        repository.fetch(planned(uri, credentials="b"), stop)
    web.fault = lambda _seen: None
    web.seen.clear()
    assert repository.fetch(planned(uri, credentials="c"), stop).path.read_bytes() == DATA
    assert {seen.authorization for seen in web.seen} == {"Bearer c"}
    assert {seen.range for seen in web.seen} >= {f"bytes={at}-{min(at + 999, 10_499)}" for at in range(0, 10_500, 1000)}
    repository.close()


def test_a_server_that_does_not_say_how_long_a_file_is(web: Web, repository: Repository, planned: Planned) -> None:
    web.files["/m.onnx"], web.lengths, web.ranges = DATA, False, False
    why, text = reason(repository, planned(f"{web.url}/m.onnx"))
    assert (why, "Content-Length" in text) == (FailureReason.DOWNLOAD_FAILED, True)
    assert len(web.seen) == 2
