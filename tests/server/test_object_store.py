"""Models in a real S3 server on loopback: a file, a folder, credentials of a Secret, and what is refused."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from modelpier_cluster import ObjectStore
from modelpier_cluster.errors import ClusterError
from modelpier_server.contract import FailureReason, ModelState, PlannedModel
from modelpier_server.errors import ModelError
from modelpier_server.repository.disk import Disk
from modelpier_server.repository.fetch import Places, Repository
from modelpier_server.repository.local import listing_digest
from modelpier_server.repository.retry import Retry
from support import onnx_models
from support.server_process import PlanVolume, plan, server, wait_for

NOBODY = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
DATA = onnx_models.mlp()


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    try:
        made = ObjectStore()
        made.__enter__()
    except ClusterError as error:
        pytest.skip(str(error))
    try:
        client = boto3.client("s3", endpoint_url=made.url, **made.boto3_arguments())
        client.create_bucket(Bucket="models")
        for key, body in (
            ("m/3/model.onnx", DATA),
            ("folder/model.onnx", b"graph"),
            ("folder/a b/w.bin", b"weights"),
            ("folder/_SUCCESS", b""),
            ("folderish/other.onnx", b"not in the folder"),
        ):
            client.put_object(Bucket="models", Key=key, Body=body)
        client.put_object(Bucket="models", Key="big.bin", Body=bytes(range(256)) * 4096 * 40)
        client.close()
        yield made
    finally:
        made.__exit__(None, None, None)


def environment(store: ObjectStore, **changes: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": store.access_key,
        "AWS_SECRET_ACCESS_KEY": store.secret_key,
        "AWS_REGION": store.region,
        "AWS_ENDPOINT_URL": store.url,
        **changes,
    }


def repository(tmp_path: Path, environment: dict[str, str]) -> Repository:
    places = Places(Disk(tmp_path / "models"), tmp_path / "credentials", tmp_path)
    return Repository(places, environment, isolated=True, retry=Retry(2, 0.01, 0.02))


def fetch(made: Repository, uri: str, **fields: Any) -> Any:
    return made.fetch(PlannedModel("m", "r1", "1", uri, **fields), threading.Event())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file(store: ObjectStore, tmp_path: Path) -> None:
    got = fetch(repository(tmp_path, environment(store)), "s3://models/m/3/model.onnx")
    assert (got.path.read_bytes(), got.digest) == (DATA, f"sha256:{sha256(DATA)}")


def test_several_ranges(store: ObjectStore, tmp_path: Path) -> None:
    got = fetch(repository(tmp_path, environment(store)), "s3://models/big.bin")
    assert got.digest == f"sha256:{sha256(bytes(range(256)) * 4096 * 40)}"


def test_a_folder(store: ObjectStore, tmp_path: Path) -> None:
    got = fetch(repository(tmp_path, environment(store)), "s3://models/folder/")
    files = {"model.onnx": b"graph", "a b/w.bin": b"weights", "_SUCCESS": b""}
    assert got.digest == listing_digest((n, sha256(d)) for n, d in files.items())
    assert {p.relative_to(got.path.parent).as_posix() for p in got.path.parent.rglob("*") if p.is_file()} == set(files)


def test_a_secret_of_its_own(store: ObjectStore, tmp_path: Path) -> None:
    secret = tmp_path / "credentials" / "store"
    secret.mkdir(parents=True)
    for key, value in environment(store).items():
        (secret / key).write_text(value + "\n")
    wrong = {"AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "mine", "AWS_SESSION_TOKEN": "mine"}
    got = fetch(repository(tmp_path, wrong), "s3://models/m/3/model.onnx", credentials="store")
    assert got.size_bytes == len(DATA)


@pytest.mark.parametrize(
    ("changes", "uri", "reason"),
    [
        ({}, "s3://models/absent.onnx", FailureReason.MODEL_NOT_FOUND),
        ({}, "s3://models/absent/", FailureReason.MODEL_NOT_FOUND),
        ({}, "s3://absent/m.onnx", FailureReason.MODEL_NOT_FOUND),
        ({"AWS_SECRET_ACCESS_KEY": "geheim"}, "s3://models/m/3/model.onnx", FailureReason.DOWNLOAD_FORBIDDEN),
        (NOBODY, "s3://models/m/3/model.onnx", FailureReason.DOWNLOAD_FORBIDDEN),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "s3://models/m/3/model.onnx", FailureReason.DOWNLOAD_FAILED),
    ],
)
def test_refusals(store: ObjectStore, tmp_path: Path, changes: dict[str, str], uri: str, reason: FailureReason) -> None:
    with pytest.raises(ModelError) as caught:
        fetch(repository(tmp_path, environment(store, **changes)), uri)
    assert caught.value.reason is reason, caught.value
    assert "geheim" not in str(caught.value)


def test_a_pod_serves_from_it(store: ObjectStore, tmp_path: Path, volume: PlanVolume) -> None:
    planned = PlannedModel("m", "r1", "3", "s3://models/m/3/model.onnx", f"sha256:{sha256(DATA)}")
    volume.write(plan(1, planned))
    with server(tmp_path / "s", environment={**volume.environment, **environment(store)}) as running:
        running.wait_ready()
        assert running.report().models[0].state is ModelState.READY


def test_an_overwritten_model_is_refused(store: ObjectStore, tmp_path: Path, volume: PlanVolume) -> None:
    planned = PlannedModel("m", "r1", "3", "s3://models/m/3/model.onnx", f"sha256:{'0' * 64}")
    volume.write(plan(1, planned))
    with server(tmp_path / "s", environment={**volume.environment, **environment(store)}) as running:
        wait_for(lambda: running.process.poll() is not None)
    assert store.secret_key not in running.output
    assert "DigestMismatch" in running.output
