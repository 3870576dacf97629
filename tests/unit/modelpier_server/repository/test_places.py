"""Models in place (file, pvc), folders, and what the credentials of a Secret become."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpier_server.contract import FailureReason, PlannedModel
from modelpier_server.errors import ModelError
from modelpier_server.repository import credentials
from modelpier_server.repository.fetch import Places, Repository
from modelpier_server.repository.local import listing_digest
from support.web import Web

Planned = Callable[..., PlannedModel]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(path: Path, data: bytes = b"model") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def refused(repository: Repository, model: PlannedModel) -> tuple[FailureReason, str]:
    with pytest.raises(ModelError) as caught:
        repository.fetch(model, threading.Event())
    return caught.value.reason, str(caught.value)


# ------------------------------------------------------------------------------------------------ in place
def test_a_claim_is_read_where_it_is(
    repository: Repository, places: Places, planned: Planned, stop: threading.Event
) -> None:
    real = put(places.pvc / "claim" / "a" / "m.onnx")
    got = repository.fetch(planned("pvc://claim/a/m.onnx"), stop)
    assert got.digest == f"sha256:{sha256(b'model')}"
    assert got.path.resolve() == real
    assert [p.name for p in got.path.parent.iterdir()] == [
        "model.onnx"
    ]  # nothing else is beside what the digest covers


def test_a_laptop_loads_the_file_itself(
    places: Places, planned: Planned, stop: threading.Event, tmp_path: Path
) -> None:
    real = put(tmp_path / "m.onnx")
    assert Repository(places, {}, isolated=False).fetch(planned(real.as_uri()), stop).path == real


def test_links_may_not_leave_the_claim(
    repository: Repository, places: Places, planned: Planned, tmp_path: Path
) -> None:
    put(tmp_path / "secret")
    (places.pvc / "claim").mkdir(parents=True)
    (places.pvc / "claim" / "m.onnx").symlink_to(tmp_path / "secret")
    why, text = refused(repository, planned("pvc://claim/m.onnx"))
    assert (why, "leads out" in text) == (FailureReason.MODEL_INVALID, True)


def test_links_may_not_leave_a_folder(repository: Repository, places: Places, planned: Planned) -> None:
    folder = places.pvc / "claim" / "m"
    put(folder / "model.onnx")
    put(places.pvc / "claim" / "other")
    (folder / "weights").symlink_to("../other")
    why, text = refused(repository, planned("pvc://claim/m/"))
    assert (why, "weights" in text) == (FailureReason.MODEL_INVALID, True)


def test_a_mounted_configmap_is_a_folder_like_any_other(
    repository: Repository, places: Places, planned: Planned, stop: threading.Event
) -> None:
    folder = places.pvc / "claim" / "m"
    put(folder / "..2026" / "model.onnx")
    (folder / "..data").symlink_to("..2026")
    (folder / "model.onnx").symlink_to("..data/model.onnx")
    assert repository.fetch(planned("pvc://claim/m/"), stop).path == folder / "model.onnx"


def test_a_file_that_is_not_there(repository: Repository, planned: Planned) -> None:
    assert refused(repository, planned("pvc://claim/m.onnx"))[0] is FailureReason.MODEL_NOT_FOUND
    assert refused(repository, planned("file:///nowhere/m.onnx"))[0] is FailureReason.MODEL_NOT_FOUND


def test_a_pipe_is_no_model(repository: Repository, places: Places, planned: Planned) -> None:
    (places.pvc / "claim").mkdir(parents=True)
    os.mkfifo(places.pvc / "claim" / "m.onnx")
    assert refused(repository, planned("pvc://claim/m.onnx"))[0] is FailureReason.MODEL_INVALID


def test_folder_and_file_are_not_confused(repository: Repository, places: Places, planned: Planned) -> None:
    put(places.pvc / "claim" / "a" / "m.onnx")
    why, text = refused(repository, planned("pvc://claim/a"))
    assert (why, 'end it with "/"' in text) == (FailureReason.PLAN_INVALID, True)
    assert refused(repository, planned("pvc://claim/a/m.onnx/"))[0] is FailureReason.MODEL_NOT_FOUND


@pytest.mark.parametrize(("names", "says"), [((), "no .onnx"), (("a.onnx", "b.onnx"), "a.onnx, b.onnx")])
def test_a_folder_holds_one_model(
    repository: Repository, places: Places, planned: Planned, names: tuple[str, ...], says: str
) -> None:
    for name in (*names, "readme", "deeper/c.onnx"):
        put(places.pvc / "claim" / "m" / name)
    why, text = refused(repository, planned("pvc://claim/m/"))
    assert (why, says in text) == (FailureReason.MODEL_INVALID, True)


def test_a_write_while_loading_is_noticed(
    repository: Repository, places: Places, planned: Planned, stop: threading.Event
) -> None:
    real = put(places.pvc / "claim" / "m.onnx")
    got = repository.fetch(planned("pvc://claim/m.onnx"), stop)
    got.check()
    real.write_bytes(b"other")
    os.utime(real, ns=(0, 0))
    with pytest.raises(ModelError) as caught:
        got.check()
    assert caught.value.reason is FailureReason.DIGEST_MISMATCH


def test_pins_hold_in_place_too(repository: Repository, places: Places, planned: Planned) -> None:
    put(places.pvc / "claim" / "m.onnx")
    pinned = planned("pvc://claim/m.onnx", f"sha256:{'0' * 64}")
    assert refused(repository, pinned)[0] is FailureReason.DIGEST_MISMATCH
    assert refused(repository, planned("pvc://claim/m.onnx", "md5:1"))[0] is FailureReason.PLAN_INVALID


# ------------------------------------------------------------------------------------------------ folders
@given(st.dictionaries(st.text(min_size=1), st.binary(), min_size=1))
def test_the_digest_of_a_folder_is_that_of_its_sorted_listing(content: dict[str, bytes]) -> None:
    lines = sorted(f"{name}\0{sha256(data)}\n".encode("utf-8", "surrogatepass") for name, data in content.items())
    assert listing_digest((n, sha256(d)) for n, d in content.items()) == f"sha256:{sha256(b''.join(lines))}"


def test_a_folder_of_a_hub(
    repository: Repository, web: Web, places: Places, planned: Planned, stop: threading.Event
) -> None:
    resolve, tree = "/org/repo/resolve/v1%2F2", "/api/models/org/repo/tree/v1%2F2/onnx?recursive=true"
    web.files[tree] = (
        b'[{"type":"file","path":"onnx/model.onnx"},{"type":"directory","path":"onnx/x"},'
        b'{"type":"file","path":"onnx/x/a b.bin"},{"type":"file","path":"onnx/empty"}]'
    )
    web.files |= {
        f"{resolve}/onnx/model.onnx": b"graph",
        f"{resolve}/onnx/x/a%20b.bin": b"data",
        f"{resolve}/onnx/empty": b"",
    }
    made = Repository(places, {"HF_ENDPOINT": f"{web.url}/", "HF_TOKEN": "geheim"}, isolated=True)
    model = planned("hf://org/repo@v1%2F2/onnx/")
    got = made.fetch(model, stop)
    expected = [("model.onnx", sha256(b"graph")), ("x/a b.bin", sha256(b"data")), ("empty", sha256(b""))]
    assert got.digest == listing_digest(expected)
    assert got.path.read_bytes() == b"graph"
    assert (got.path.parent / "x" / "a b.bin").read_bytes() == b"data"
    assert {seen.authorization for seen in web.seen} == {"Bearer geheim"}
    web.seen.clear()
    assert made.fetch(planned("hf://org/repo@v1%2F2/onnx/", got.digest), stop) == got
    assert web.seen == []
    made.close()


@pytest.mark.parametrize("name", ["../evil.onnx", "/etc/evil.onnx", "a/../../evil.onnx", "a\\\\b.onnx", "a//b.onnx"])
def test_a_listing_cannot_write_elsewhere(web: Web, places: Places, planned: Planned, name: str) -> None:
    listing = '[{"type":"file","path":"m/model.onnx"},{"type":"file","path":"m/NAME"}]'.replace("NAME", name)
    web.files["/api/models/org/repo/tree/main/m?recursive=true"] = listing.encode()
    made = Repository(places, {"HF_ENDPOINT": web.url}, isolated=True)
    why, text = refused(made, planned("hf://org/repo/m/"))
    assert (why, "refused file name" in text) == (FailureReason.MODEL_INVALID, True)


def test_an_answer_that_is_no_listing(web: Web, places: Places, planned: Planned) -> None:
    web.files["/api/models/org/repo/tree/main/m?recursive=true"] = b"<html>"
    made = Repository(places, {"HF_ENDPOINT": web.url}, isolated=True)
    assert refused(made, planned("hf://org/repo/m/"))[0] is FailureReason.DOWNLOAD_FAILED


# ------------------------------------------------------------------------------------------------ credentials
def test_a_secret_is_never_mixed_with_the_environment(tmp_path: Path) -> None:
    put(tmp_path / "store" / "AWS_ACCESS_KEY_ID", b"key\n")
    environment = {"AWS_SECRET_ACCESS_KEY": "mine", "AWS_SESSION_TOKEN": "mine", "AWS_REGION": "eu-west-1"}
    found = credentials.read(tmp_path, "store", environment)
    assert found == {"AWS_ACCESS_KEY_ID": "key", "AWS_REGION": "eu-west-1"}
    assert "key" not in repr(found).replace("AWS_ACCESS_KEY_ID", "")


@pytest.mark.parametrize("name", ["", ".", "..", "../store", "a/b", "absent"])
def test_a_secret_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        credentials.read(tmp_path / "credentials", name, {})
    assert caught.value.reason is FailureReason.DOWNLOAD_FORBIDDEN
    assert str(caught.value).startswith("credentials: ")


def test_a_secret_that_is_no_text_is_not_shown(tmp_path: Path) -> None:
    put(tmp_path / "store" / "HF_TOKEN", b"geheim\xff")
    with pytest.raises(ModelError) as caught:
        credentials.read(tmp_path, "store", {})
    assert "geheim" not in str(caught.value)
    assert "HF_TOKEN" in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "sent"),
    [
        ({"HTTP_USERNAME": "u", "HTTP_PASSWORD": "p"}, "Basic dTpw"),
        ({"HTTP_AUTHORIZATION": "Bearer x"}, "Bearer x"),
        ({"HF_TOKEN": "x", "AWS_ACCESS_KEY_ID": "y"}, ""),
    ],
)
def test_http_credentials(
    web: Web, places: Places, planned: Planned, stop: threading.Event, environment: dict[str, str], sent: str
) -> None:
    web.files["/m.onnx"] = b"model"
    Repository(places, environment, isolated=True).fetch(planned(f"{web.url}/m.onnx"), stop)
    assert web.seen[0].authorization == sent


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"AWS_ENDPOINT_URL": "minio:9000"}, "AWS_ENDPOINT_URL"),
        ({"AWS_ACCESS_KEY_ID": "x"}, "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_half_credentials_are_named(places: Places, planned: Planned, environment: dict[str, str], says: str) -> None:
    why, text = refused(Repository(places, environment, isolated=True), planned("s3://bucket/m.onnx"))
    assert (why, says in text) == (FailureReason.PLAN_INVALID, True)
