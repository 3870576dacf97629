"""What can go wrong is told by its root cause, on real nodes: each test makes one real mishap."""

from __future__ import annotations

import pytest

from e2e.world import World, condition, model_deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]


def test_an_image_that_cannot_be_pulled(world: World, namespace: str, digits: dict[str, str], registry: str) -> None:
    image = f"{registry}/no-such-image:1"
    world.apply(model_deployment("m", digits["1"], server={"image": image}), namespace=namespace)
    md = world.wait_reason("m", namespace, "ImagePullFailed")
    assert image in condition(md, "Ready")["message"]

    def pulls() -> int:
        events = world.list("events", namespace, field="reason=Failed")
        return sum(e.get("count") or 1 for e in events if e["message"].startswith("Failed to pull image"))

    world.wait(lambda: pulls() > 1, "the kubelet to try again")
    before, tries = world.md("m", namespace), pulls()
    world.wait(lambda: pulls() >= tries + 2, "two tries more", seconds=120)
    assert world.md("m", namespace) == before, "nothing is new, so nothing is written"


def test_a_pod_that_needs_a_gpu_that_is_not_there(world: World, namespace: str, digits: dict[str, str]) -> None:
    spec = model_deployment("m", digits["1"], resources={"gpu": 64})
    world.apply(spec, namespace=namespace)
    md = world.wait_reason("m", namespace, "InsufficientGPU")
    assert "nvidia.com/gpu" in condition(md, "Ready")["message"]


def test_a_pod_that_no_node_fits(world: World, namespace: str, digits: dict[str, str]) -> None:
    world.apply(
        model_deployment("m", digits["1"], resources={"nodeSelector": {"disk": "quantum"}}), namespace=namespace
    )
    world.wait_reason("m", namespace, "Unschedulable")


def test_a_container_that_ends_again_and_again(
    world: World, namespace: str, digits: dict[str, str], operator_image: str
) -> None:
    # The operator's image starts, finds no settings and exits: a crash loop that is not the model's.
    world.apply(model_deployment("m", digits["1"], server={"image": operator_image}), namespace=namespace)
    world.wait_reason("m", namespace, "CrashLoop")


def test_out_of_memory(world: World, namespace: str, big_model: str) -> None:
    world.apply(model_deployment("m", big_model, resources={"memory": "96Mi"}), namespace=namespace)
    world.wait_reason("m", namespace, "OutOfMemory", seconds=150)


def test_download_forbidden(world: World, namespace: str, digits: dict[str, str]) -> None:
    world.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "wrong"},
            "stringData": {
                "AWS_ACCESS_KEY_ID": world.store.access_key,
                "AWS_SECRET_ACCESS_KEY": "wrong",
                "AWS_ENDPOINT_URL": world.store.endpoint,
            },
        },
        model_deployment("m", digits["1"], model={"credentialsSecret": "wrong"}),
        namespace=namespace,
    )
    md = world.wait_reason("m", namespace, "DownloadForbidden")
    assert "wrong" not in condition(md, "Ready")["message"].split("credentialsSecret")[0], "a secret must never be told"


def test_model_not_found(world: World, namespace: str) -> None:
    world.apply(model_deployment("m", "s3://models/no/such/model.onnx"), namespace=namespace)
    world.wait_reason("m", namespace, "ModelNotFound")


def test_disk_full(world: World, namespace: str, big_model: str) -> None:
    world.apply(model_deployment("m", big_model, resources={"modelStorage": "1Mi"}), namespace=namespace)
    world.wait_reason("m", namespace, "DiskFull")


def test_digest_mismatch(world: World, namespace: str, digits: dict[str, str]) -> None:
    world.apply(model_deployment("m", digits["1"], model={"digest": "sha256:" + "0" * 64}), namespace=namespace)
    world.wait_reason("m", namespace, "DigestMismatch")
    assert not [p for p in world.pods("m", namespace) if ready(p)]


def test_a_model_that_does_not_load(world: World, namespace: str, no_model: str) -> None:
    world.apply(model_deployment("m", no_model), namespace=namespace)
    world.wait_reason("m", namespace, "ModelInvalid")


def test_a_provider_that_is_not_there(world: World, namespace: str, digits: dict[str, str], server_image: str) -> None:
    # A GPU is granted (a pretended one), so the server is asked for CUDA and refuses to be ready on the CPU instead.
    spec = model_deployment("m", digits["1"], resources={"gpu": 1}, server={"image": server_image})
    world.apply(spec, namespace=namespace)
    world.wait_reason("m", namespace, "ProviderUnavailable")


def test_quota(world: World, namespace: str, digits: dict[str, str]) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    world.apply(quota, namespace=namespace)
    world.apply(model_deployment("m", digits["1"]), namespace=namespace)
    md = world.wait_reason("m", namespace, "QuotaExceeded")
    assert "none" in condition(md, "Ready")["message"]


def test_a_pod_that_admission_refuses(world: World, namespace: str, digits: dict[str, str]) -> None:
    limit = {"type": "Container", "max": {"memory": "64Mi"}}
    world.apply(
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": [limit]}},
        namespace=namespace,
    )
    world.apply(model_deployment("m", digits["1"]), namespace=namespace)
    world.wait_reason("m", namespace, "PodRejected")


def test_a_secret_that_is_not_there(world: World, namespace: str, digits: dict[str, str]) -> None:
    world.apply(model_deployment("m", digits["1"], model={"credentialsSecret": "nowhere"}), namespace=namespace)
    md = world.wait_reason("m", namespace, "SecretMissing")
    assert "nowhere" in condition(md, "Ready")["message"]


def test_a_volume_that_is_not_there(world: World, namespace: str) -> None:
    world.apply(
        model_deployment("m", "pvc://nowhere/model.onnx", model={"credentialsSecret": None}), namespace=namespace
    )
    md = world.wait_reason("m", namespace, "VolumeMissing")
    assert "nowhere" in condition(md, "Ready")["message"]


def test_a_service_of_somebody_else(world: World, namespace: str, digits: dict[str, str]) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "m"}, "spec": {"ports": [{"port": 9}]}}
    world.apply(service, namespace=namespace)
    before = world.get("service", "m", namespace)
    world.apply(model_deployment("m", digits["1"]), namespace=namespace)
    world.wait_reason("m", namespace, "NameConflict")
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
    assert condition(md, "Stalled")["reason"] == "ModelInvalid"
    world.wait(lambda: len([p for p in world.pods("m", namespace) if ready(p)]) == 1, "only the old pod")


def ready(pod: dict) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
