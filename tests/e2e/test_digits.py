"""The main job: one object applied, a real model answering from real pods, and a status that says so."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from e2e.world import World, condition, model_deployment, post

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]


def test_a_model_is_served_in_every_protocol(
    world: World, namespace: str, digits: dict[str, str], digits_folder: Path
) -> None:
    world.apply(model_deployment("digits", digits["2"], replicas=2, model={"version": "2"}), namespace=namespace)
    md = world.wait_ready("digits", namespace, version="2")
    held = np.load(digits_folder / "test.npz")
    pixels, labels = held["pixels"][:100], held["labels"][:100]
    url = world.service_url("digits", namespace)

    status, answer = post(f"{url}/model", {"model_name": "digits", "input_data": pixels.tolist()})
    assert status == 200, answer
    plain = np.array(answer["output_data"]["label"])
    assert (plain == labels).mean() > 0.95

    tensor = {"name": "pixels", "shape": [100, 64], "datatype": "FP32", "data": pixels.ravel().tolist()}
    status, answer = post(f"{url}/v2/models/digits/versions/2/infer", {"id": "7", "inputs": [tensor]})
    assert status == 200, answer
    assert answer["id"] == "7"
    assert answer["model_version"] == "2"
    outputs = {o["name"]: o for o in answer["outputs"]}
    assert outputs["label"]["data"] == plain.tolist()
    assert outputs["probabilities"]["shape"] == [100, 10]

    assert md["status"]["url"] == f"http://digits.{namespace}.svc.cluster.local"
    revision = md["status"]["revisions"][0]
    assert revision["weight"] == 100
    assert revision["digest"] == "sha256:" + sha256(digits_folder / "2" / "model.onnx")
    assert {"download", "load"} <= set(md["status"]["timings"])
    assert condition(md, "Available")["status"] == "True"
    assert condition(md, "ModelResolved")["status"] == "True"


def test_applying_again_writes_nothing(world: World, namespace: str, digits: dict[str, str]) -> None:
    manifest = model_deployment("m", digits["1"])
    world.apply(manifest, namespace=namespace)
    world.wait_ready("m", namespace)
    before = snapshot(world, namespace)
    world.apply(manifest, namespace=namespace)
    world.kubectl("annotate", "md", "m", "-n", namespace, "touched=1")  # an event that asks for a pass
    world.apply(model_deployment("other", digits["1"]), namespace=namespace)
    world.wait_ready("other", namespace)  # passes have happened since
    assert snapshot(world, namespace) == before


def snapshot(world: World, namespace: str) -> dict[str, str]:
    kinds = "controllerrevisions,configmaps,deployments,services,serviceaccounts,networkpolicies"
    items = world.list(kinds, namespace, "modelpier.dev/deployment=m")
    return {f"{i['kind']}/{i['metadata']['name']}": i["metadata"]["resourceVersion"] for i in items}


def sha256(path: Path) -> str:
    return subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True).stdout.split()[0]
