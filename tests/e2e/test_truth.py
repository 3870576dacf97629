"""What can go wrong is told by its root cause, on real nodes: each test makes one real mishap, and reads in the status
what it was and what to do about it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from e2e.conftest import OPERATOR, Upgraded
from e2e.nodes import OnNode, cut_off
from e2e.world import Manifest, World, condition, model_deployment
from modelpier_server.contract import ADMIN_PORT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]


# ------------------------------------------------------------------------------------------------ no pod, no node
def test_quota(world: World, namespace: str, digits: dict[str, str]) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    world.apply(quota, namespace=namespace)
    world.apply(model_deployment("m", digits["1"]), namespace=namespace)
    world.wait_told("m", namespace, "QuotaExceeded", "exceeded quota: none", "limited: pods=0")
    assert world.pods("m", namespace) == []


def test_a_pod_that_pod_security_refuses(
    world: World, namespace: str, digits: dict[str, str], upgraded: Upgraded
) -> None:
    """Only an override can make such a pod: ours are admitted under `restricted`, in all of these tests."""
    with upgraded("allowPodOverrides=true"):
        override = {"podTemplate": {"spec": {"hostNetwork": True}}}
        world.apply(model_deployment("m", digits["1"], resources=override), namespace=namespace)
        world.wait_told("m", namespace, "PodRejected", 'violates PodSecurity "restricted', "hostNetwork=true")
        assert world.pods("m", namespace) == []
        world.apply(model_deployment("m", digits["1"]), namespace=namespace)
        world.wait_ready("m", namespace)
    labels = json.loads(world.kubectl("get", "namespace", namespace, "-o", "json"))["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_pod_that_a_limit_range_refuses(world: World, namespace: str, digits: dict[str, str]) -> None:
    limit = {"type": "Container", "max": {"memory": "64Mi"}}
    world.apply(
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": [limit]}},
        namespace=namespace,
    )
    world.apply(model_deployment("m", digits["1"]), namespace=namespace)
    world.wait_told("m", namespace, "PodRejected", "maximum memory usage per Container is 64Mi")
    assert world.pods("m", namespace) == []


def test_a_pod_that_needs_a_gpu_that_is_not_there(world: World, namespace: str, digits: dict[str, str]) -> None:
    world.apply(model_deployment("m", digits["1"], resources={"gpu": 64}), namespace=namespace)
    md = world.wait_told("m", namespace, "InsufficientGPU", "Insufficient nvidia.com/gpu")
    assert condition(md, "Scheduled")["reason"] == "InsufficientGPU"


def test_a_pod_that_no_node_fits(world: World, namespace: str, digits: dict[str, str]) -> None:
    world.apply(
        model_deployment("m", digits["1"], resources={"nodeSelector": {"disk": "quantum"}}), namespace=namespace
    )
    md = world.wait_told("m", namespace, "Unschedulable", "didn't match Pod's node affinity/selector")
    assert condition(md, "Scheduled")["reason"] == "Unschedulable"


# ------------------------------------------------------------------------------------------------ no container
def test_an_image_that_cannot_be_pulled(world: World, namespace: str, digits: dict[str, str], registry: str) -> None:
    image = f"{registry}/no-such-image:1"
    world.apply(model_deployment("m", digits["1"], server={"image": image}), namespace=namespace)
    world.wait_told("m", namespace, "ImagePullFailed", image)


def test_a_secret_that_is_not_there(world: World, namespace: str, digits: dict[str, str]) -> None:
    world.apply(model_deployment("m", digits["1"], model={"credentialsSecret": "nowhere"}), namespace=namespace)
    world.wait_told("m", namespace, "SecretMissing", 'secret "nowhere" not found')


def test_a_volume_that_is_not_there(world: World, namespace: str) -> None:
    world.apply(
        model_deployment("m", "pvc://nowhere/model.onnx", model={"credentialsSecret": None}), namespace=namespace
    )
    world.wait_told("m", namespace, "VolumeMissing", 'persistentvolumeclaim "nowhere" not found')


# ------------------------------------------------------------------------------------------------ no model
def test_a_container_that_ends_again_and_again(
    world: World, namespace: str, digits: dict[str, str], operator_image: str
) -> None:
    # The operator's image starts, finds no settings and exits: a crash loop that is not the model's.
    world.apply(model_deployment("m", digits["1"], server={"image": operator_image}), namespace=namespace)
    world.wait_told("m", namespace, "CrashLoop", "exit status 2")


def test_out_of_memory(world: World, namespace: str, big_model: str) -> None:
    world.apply(model_deployment("m", big_model, resources={"memory": "96Mi"}), namespace=namespace)
    world.wait_told("m", namespace, "OutOfMemory", "The kernel killed the container", "resources.memory", seconds=150)


def test_download_forbidden(world: World, namespace: str, digits: dict[str, str]) -> None:
    key = "a-key-that-nobody-may-read-in-a-status"
    data = {
        "AWS_ACCESS_KEY_ID": world.store.access_key,
        "AWS_SECRET_ACCESS_KEY": key,
        "AWS_ENDPOINT_URL": world.store.endpoint,
    }
    world.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wrong"}, "stringData": data},
        model_deployment("m", digits["1"], model={"credentialsSecret": "wrong"}),
        namespace=namespace,
    )
    md = world.wait_told("m", namespace, "DownloadForbidden", digits["1"], "403")
    assert key not in json.dumps(md["status"])


def test_model_not_found(world: World, namespace: str) -> None:
    uri = "s3://models/no/such/model.onnx"
    world.apply(model_deployment("m", uri), namespace=namespace)
    world.wait_told("m", namespace, "ModelNotFound", uri)


def test_disk_full(world: World, namespace: str, big_model: str) -> None:
    world.apply(model_deployment("m", big_model, resources={"modelStorage": "1Mi"}), namespace=namespace)
    world.wait_told("m", namespace, "DiskFull", "takes 64.0 MiB", "room for 1.0 MiB")


def test_digest_mismatch(world: World, namespace: str, digits: dict[str, str], digits_folder: Path) -> None:
    asked = "sha256:" + "0" * 64
    found = "sha256:" + hashlib.sha256((digits_folder / "1" / "model.onnx").read_bytes()).hexdigest()
    world.apply(model_deployment("m", digits["1"], model={"digest": asked}), namespace=namespace)
    world.wait_told("m", namespace, "DigestMismatch", asked, found)
    assert not [p for p in world.pods("m", namespace) if ready(p)]


def test_a_model_that_does_not_load(world: World, namespace: str, no_model: str) -> None:
    world.apply(model_deployment("m", no_model), namespace=namespace)
    world.wait_told("m", namespace, "ModelInvalid", "model.onnx", "INVALID_PROTOBUF")


def test_a_provider_that_is_not_there(world: World, namespace: str, digits: dict[str, str], server_image: str) -> None:
    # A GPU is granted (a pretended one), so the server is asked for CUDA and refuses to be ready on the CPU instead.
    spec = model_deployment("m", digits["1"], resources={"gpu": 1}, server={"image": server_image})
    world.apply(spec, namespace=namespace)
    world.wait_told("m", namespace, "ProviderUnavailable", "CUDAExecutionProvider")


# ------------------------------------------------------------------------------------------------ no way there
def test_a_pod_that_the_operator_cannot_reach(
    world: World, namespace: str, digits: dict[str, str], on_node: OnNode
) -> None:
    with cut_off(on_node, world.list("pods", world.system_namespace, OPERATOR), ADMIN_PORT):
        world.apply(model_deployment("m", digits["1"]), namespace=namespace)
        md = world.wait_told("m", namespace, "PodUnreachable", f":{ADMIN_PORT}", "NetworkPolicy")
        (pod,) = world.pods("m", namespace)
        assert pod["status"]["phase"] == "Running"
        assert f"no answer from {pod['status']['podIP']}" in condition(md, "Ready")["message"]
        assert condition(md, "Available")["status"] == "False"
    world.wait_ready("m", namespace)
    assert [p["metadata"]["uid"] for p in world.pods("m", namespace)] == [pod["metadata"]["uid"]]


# ------------------------------------------------------------------------------------------------ beside others
def test_a_service_of_somebody_else(world: World, namespace: str, digits: dict[str, str]) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "m"}, "spec": {"ports": [{"port": 9}]}}
    world.apply(service, namespace=namespace)
    before = world.get("service", "m", namespace)
    world.apply(model_deployment("m", digits["1"]), namespace=namespace)
    world.wait_told("m", namespace, "NameConflict", "Service m")
    assert world.get("service", "m", namespace) == before


def test_a_failed_version_leaves_the_old_one_serving(
    world: World, namespace: str, digits: dict[str, str], no_model: str
) -> None:
    rollout = {"progressDeadlineSeconds": 15, "capacityWaitSeconds": 5}
    world.apply(model_deployment("m", digits["1"], rollout=rollout, model={"version": "1"}), namespace=namespace)
    world.wait_ready("m", namespace)
    world.apply(model_deployment("m", no_model, rollout=rollout, model={"version": "2"}), namespace=namespace)
    md = world.wait(
        lambda: (md := world.md("m", namespace)) and condition(md, "Stalled").get("status") == "True" and md,
        "the rollout to be given up",
    )
    assert condition(md, "Available")["status"] == "True"
    assert condition(md, "Degraded")["status"] == "True"
    assert condition(md, "Stalled")["reason"] == condition(md, "Ready")["reason"] == "ModelInvalid"
    assert "was given up. " in condition(md, "Ready")["message"]
    assert "INVALID_PROTOBUF" in condition(md, "Ready")["message"]
    world.wait(lambda: len([p for p in world.pods("m", namespace) if ready(p)]) == 1, "only the old pod")


def ready(pod: Manifest) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
