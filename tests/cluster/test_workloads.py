"""What runs on a cluster: images, pods, names, services, GPUs of both kinds, objects. The probes are `kube` and
`pause` themselves, in images of one file, so nothing has to be built or downloaded."""

import gzip
import io
import json
import socket
import subprocess
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from modelpier_cluster.archive import scratch_archive
from modelpier_cluster.audit import recording, writes
from modelpier_cluster.build import programs
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.progress import wait_for
from modelpier_cluster.registry import Registry
from support.clusters import Cluster


@pytest.fixture(scope="module")
def pause_image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    archive = tmp_path_factory.mktemp("images") / "pause.tar"
    scratch_archive(archive, "probe:1", ["/bin/pause"], {"bin/pause": programs() / "pause"})
    return cluster("load", str(archive)).strip()


@pytest.fixture(scope="module")
def kubectl_image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    archive = tmp_path_factory.mktemp("images") / "kube.tar"
    scratch_archive(archive, "kube:1", ["/bin/kube"], {"bin/kube": programs() / "kube"})
    return cluster("load", str(archive), "--as", "tools/kube:2").strip()


def pod(name: str, image: str, **spec: Any) -> str:
    container = {"name": "c", "image": image, "resources": spec.pop("resources", {})}
    container |= {key: spec.pop(key) for key in ("command", "volumeMounts") if key in spec}
    metadata = {"name": name, "labels": {"app": name}}
    body = {"terminationGracePeriodSeconds": 0, "containers": [container], **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body})


def ready(cluster: Cluster, name: str) -> None:
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")


def environment_of(cluster: Cluster, name: str) -> dict[str, str]:
    """The environment of the container's process, read on its node (the probe has no shell)."""
    node = cluster.kubectl("get", "pod", name, "-o", "jsonpath={.spec.nodeName}")
    status = json.loads(cluster.kubectl("get", "pod", name, "-o", "json"))["status"]
    container = status["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    ctr = str(programs() / "ctr")
    tasks = cluster("exec", node, ctr, "-n", "k8s.io", "tasks", "ls").splitlines()
    pid = next(line.split()[1] for line in tasks if line.startswith(container))
    raw = cluster("exec", node, "cat", f"/proc/{pid}/environ")
    return dict(pair.split("=", 1) for pair in raw.split("\0") if pair)


def test_images_are_named_as_asked(cluster: Cluster, pause_image: str, kubectl_image: str) -> None:
    registry = cluster.status()["registry"]
    assert pause_image == f"{registry}/probe:1"
    assert kubectl_image == f"{registry}/tools/kube:2"


def test_packed_layers_are_pulled_and_run(cluster: Cluster, tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.tar", tmp_path / "packed.tar"
    scratch_archive(plain, "packed:1", ["/bin/pause"], {"bin/pause": programs() / "pause"})
    with tarfile.open(plain) as source, tarfile.open(packed, "w") as target:
        for member in source:
            stream = source.extractfile(member)
            assert stream is not None
            content = gzip.compress(stream.read()) if member.name.endswith("layer.tar") else stream.read()
            member.size, member.name = len(content), f"./{member.name}"
            target.addfile(member, io.BytesIO(content))
    image = cluster("load", str(packed)).strip()
    cluster.kubectl("apply", "-f", "-", stdin=pod("packed", image))
    ready(cluster, "packed")
    cluster.kubectl("delete", "pod", "packed", "--wait=false")


def test_images_have_a_size_to_pull(cluster: Cluster, pause_image: str, kubectl_image: str) -> None:
    registry = Registry(cluster.status()["registry"])
    assert registry.packed_size(pause_image) < (programs() / "pause").stat().st_size * 1.1
    assert registry.packed_size(kubectl_image) > (programs() / "kube").stat().st_size / 10
    with pytest.raises(ClusterError, match="404"):
        registry.packed_size("tools/kube:3")


def test_pods_run_on_every_node_and_the_machine_reaches_them(cluster: Cluster, pause_image: str) -> None:
    for node in ("n1", "n2"):
        cluster.kubectl("apply", "-f", "-", stdin=pod(f"on-{node}", pause_image, nodeName=node))
    for node in ("n1", "n2"):
        ready(cluster, f"on-{node}")
        address = cluster.kubectl("get", "pod", f"on-{node}", "-o", "jsonpath={.status.podIP}")
        with pytest.raises(ConnectionRefusedError):  # refused by the pod itself: the packet got there and back
            socket.create_connection((address, 1), timeout=5)


def test_zones_differ(cluster: Cluster) -> None:
    labels = cluster.kubectl(
        "get", "nodes", "-o", "jsonpath={.items[*].metadata.labels.topology\\.kubernetes\\.io/zone}"
    )
    assert labels.split() == ["zone-a", "zone-b"]


def test_service_names_and_addresses_work_from_a_pod(cluster: Cluster, kubectl_image: str) -> None:
    """A pod asks the API server by its DNS name through the service address, with its own account."""
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    server = {"server": "https://kubernetes.default.svc", "certificate-authority": f"{account}/ca.crt"}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "pod",
        "clusters": [{"name": "pod", "cluster": server}],
        "users": [{"name": "pod", "user": {"tokenFile": f"{account}/token"}}],
        "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod"}}],
    }
    cluster.kubectl("create", "configmap", "kubeconfig", f"--from-literal=config={json.dumps(kubeconfig)}")
    cluster.kubectl("create", "clusterrolebinding", "viewer", "--clusterrole=view", "--serviceaccount=default:default")
    spec = pod(
        "asks",
        kubectl_image,
        command=["/bin/kube", "kubectl", "--kubeconfig=/kube/config", "get", "services", "-o", "name"],
        volumeMounts=[{"name": "kubeconfig", "mountPath": "/kube"}],
        volumes=[{"name": "kubeconfig", "configMap": {"name": "kubeconfig"}}],
        restartPolicy="Never",
    )
    cluster.kubectl("apply", "-f", "-", stdin=spec)
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/asks", "--timeout=60s", check=False)
    assert cluster.kubectl("logs", "asks") == "service/kubernetes\n"


def test_outside_names_and_addresses_fail_at_once(cluster: Cluster) -> None:
    route = cluster("exec", "cp", "ip", "route", "show", "default")
    assert "unreachable" in route


def test_gpus_by_device_plugin(cluster: Cluster, pause_image: str) -> None:
    spec = pod("gpu-plugin", pause_image, resources={"limits": {"nvidia.com/gpu": "6"}})
    cluster.kubectl("apply", "-f", "-", stdin=spec)
    ready(cluster, "gpu-plugin")
    node = cluster.kubectl("get", "pod", "gpu-plugin", "-o", "jsonpath={.spec.nodeName}")
    devices = environment_of(cluster, "gpu-plugin")["NVIDIA_VISIBLE_DEVICES"].split(",")
    assert len(set(devices)) == 6
    assert all(device.startswith(f"gpu-{node}-") for device in devices)
    more = {name: pod(name, pause_image, resources={"limits": {"nvidia.com/gpu": "6"}}) for name in ("second", "third")}
    for each in more.values():
        cluster.kubectl("apply", "-f", "-", stdin=each)
    ready(cluster, "second")
    condition = '--for=jsonpath={.status.conditions[?(@.type=="PodScheduled")].reason}=Unschedulable'
    cluster.kubectl("wait", condition, "pod/third", "--timeout=30s")
    cluster.kubectl("delete", "pod", "gpu-plugin", *more, "--now")


def test_gpus_by_dynamic_resource_allocation(cluster: Cluster, pause_image: str) -> None:
    select = "device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('40Gi')) >= 0"
    exactly = {"deviceClassName": "gpu.nvidia.com", "count": 2, "selectors": [{"cel": {"expression": select}}]}
    device_class = {"selectors": [{"cel": {"expression": "device.driver == 'gpu.nvidia.com'"}}]}
    template = {"spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}}
    for kind, name, content in (
        ("DeviceClass", "gpu.nvidia.com", device_class),
        ("ResourceClaimTemplate", "two-gpus", template),
    ):
        manifest = {"apiVersion": "resource.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": content}
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    claims = [{"name": "gpu", "resourceClaimTemplateName": "two-gpus"}]
    spec = pod("gpu-dra", pause_image, resources={"claims": [{"name": "gpu"}]}, resourceClaims=claims)
    cluster.kubectl("apply", "-f", "-", stdin=spec)
    ready(cluster, "gpu-dra")
    assert len(environment_of(cluster, "gpu-dra")["NVIDIA_VISIBLE_DEVICES"].split(",")) == 2


def test_a_gpu_falls_sick_and_recovers(cluster: Cluster) -> None:
    def allocatable() -> str:
        return cluster.kubectl("get", "node", "n1", "-o", "jsonpath={.status.allocatable.nvidia\\.com/gpu}")

    wait_for("8 GPUs", lambda: allocatable() == "8", 30)
    cluster("exec", "n1", "sh", "-c", "echo gpu-n1-0 > /run/fake-gpu-unhealthy")
    wait_for("7 GPUs", lambda: allocatable() == "7", 30)
    cluster("exec", "n1", "rm", "/run/fake-gpu-unhealthy")
    wait_for("8 GPUs", lambda: allocatable() == "8", 30)


def test_objects_are_stored_and_found_from_the_machine(cluster: Cluster) -> None:
    boto3 = pytest.importorskip("boto3")
    store = cluster.status()["objectStore"]
    client = boto3.client(
        "s3",
        endpoint_url=store["url"],
        aws_access_key_id=store["access_key"],
        aws_secret_access_key=store["secret_key"],
        region_name=store["region"],
    )
    client.create_bucket(Bucket="models")
    client.put_object(Bucket="models", Key="a/b", Body=b"model")
    assert client.get_object(Bucket="models", Key="a/b")["Body"].read() == b"model"
    client.close()


def test_helm_talks_to_it(cluster: Cluster) -> None:
    command = [str(programs() / "helm"), f"--kubeconfig={cluster.folder}/admin.kubeconfig", "list", "--all-namespaces"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.startswith("NAME")


def test_the_registry_is_plain_http(cluster: Cluster, pause_image: str) -> None:
    with urllib.request.urlopen(f"http://{cluster.status()['registry']}/v2/_catalog", timeout=10) as answer:
        assert "probe" in json.load(answer)["repositories"]


def test_every_request_is_in_the_audit_log(cluster: Cluster) -> None:
    with recording(Path(cluster.status()["auditLog"])) as recorded:
        cluster.kubectl("create", "configmap", "audited")
    assert writes(recorded, user="admin", user_agent="kubectl") == ["create configmaps default/audited"]
