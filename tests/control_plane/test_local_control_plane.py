"""The loopback control plane itself: the ground that the other tests of this level stand on."""

import concurrent.futures
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelpier_cluster import ClusterError, ControlPlane, ObjectStore
from modelpier_cluster.audit import recording, writes
from modelpier_cluster.build import KUBE, SOURCES, TOOLS, programs
from modelpier_cluster.processes import find
from modelpier_cluster.progress import wait_for


def _missing() -> str:
    try:
        programs([KUBE])
        programs([TOOLS])
    except ClusterError as error:
        return str(error)
    return "" if shutil.which("openssl") else "openssl is missing: install the package openssl"


pytestmark = [pytest.mark.control_plane, pytest.mark.skipif(bool(_missing()), reason=_missing())]

POD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "example.com/web:1"}]}
"""


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        yield running


def test_it_is_kubernetes(control_plane: ControlPlane) -> None:
    assert "v1.36" in control_plane.kubectl("version")


def test_only_those_with_a_token_get_in(control_plane: ControlPlane) -> None:
    kubeconfig = control_plane.kubeconfig
    assert kubeconfig.stat().st_mode & 0o077 == 0
    with pytest.raises(ClusterError, match=r"cannot get|Unauthorized|forbidden"):
        control_plane.kubectl("get", "secrets", "--as=somebody")


def test_the_audit_log_tells_who_wrote(control_plane: ControlPlane) -> None:
    with recording(control_plane.audit_log) as recorded:
        control_plane.kubectl("create", "configmap", "audited")
        control_plane.kubectl("get", "configmap", "audited")
    assert writes(recorded, user="admin") == ["create configmaps default/audited"]
    with recording(control_plane.audit_log) as recorded:
        control_plane.kubectl("get", "configmap", "audited")
    assert writes(recorded) == []
    assert [e["verb"] for e in recorded if e["objectRef"].get("name") == "audited"] == ["get"]


def test_objects_survive_a_restart_of_the_api_server(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "configmap", "kept")
    control_plane.stop_api_server()
    assert not control_plane.client.ready()
    control_plane.start_api_server()
    assert "kept" in control_plane.kubectl("get", "configmap", "kept")


def test_controllers_make_pods_and_collect_garbage() -> None:
    with ControlPlane(controller_manager=True) as running:
        wait_for(
            "the default service account",
            lambda: running.client.get("/api/v1/namespaces/default/serviceaccounts/default") is not None,
        )
        running.kubectl("apply", "-f", "-", stdin=POD)
        wait_for("two pods", lambda: len(running.kubectl("get", "pods", "-o", "name").split()) == 2)
        running.kubectl("delete", "deployment", "web", "--cascade=background")
        wait_for("no pods", lambda: not running.kubectl("get", "pods,replicasets", "-o", "name"))


def test_several_run_side_by_side_and_leave_nothing() -> None:
    several = [ControlPlane(scheduler=True) for _ in range(2)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(ControlPlane.start, several))
    try:
        several[0].kubectl("create", "configmap", "mine")
        assert "mine" not in several[1].kubectl("get", "configmaps")
    finally:
        for each in several:
            each.stop()
    for each in several:
        assert not each.folder.path.exists()
        assert find(["_supervise", str(each.folder.path)]) == []


def test_the_command_line_runs_one_without_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPIER_CLUSTER_STATE", str(tmp_path))
    monkeypatch.setenv("MODELPIER_CLUSTER_PROGRAMS", str(programs()))

    def cluster(*arguments: str) -> str:
        command = [sys.executable, str(SOURCES / "cluster.py"), *arguments, "--name", "loopback-test"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=110).stdout

    try:
        assert "cluster loopback-test: ready" in cluster("up", "--control-plane-only")
        assert "cluster loopback-test: ready" in cluster("up", "--control-plane-only"), "it is left running"
        kubeconfig = cluster("kubeconfig").strip()
        command = [str(programs([KUBE]) / "kube"), "kubectl", f"--kubeconfig={kubeconfig}", "get", "--raw", "/readyz"]
        assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout == "ok"
    finally:
        cluster("down")
    assert not Path(kubeconfig).exists()
    assert find(["_supervise-detached", str(tmp_path / "loopback-test")]) == []


def test_object_store_speaks_s3() -> None:
    boto3, botocore = pytest.importorskip("boto3"), pytest.importorskip("botocore.config")
    with ObjectStore() as store:
        config = botocore.Config(signature_version="s3v4")  # older boto3 signs URLs as S3 no longer does
        client = boto3.client("s3", endpoint_url=store.url, config=config, **store.boto3_arguments())
        client.create_bucket(Bucket="models")
        client.put_object(Bucket="models", Key="digits/1/model.onnx", Body=b"0123456789")
        part = client.get_object(Bucket="models", Key="digits/1/model.onnx", Range="bytes=2-4")
        assert part["Body"].read() == b"234"
        keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="models", Prefix="digits/")["Contents"]]
        assert keys == ["digits/1/model.onnx"]
        signed = client.generate_presigned_url("get_object", Params={"Bucket": "models", "Key": keys[0]})
        with urllib.request.urlopen(signed, timeout=10) as answer:
            assert answer.read() == b"0123456789"
        client.close()
