import copy
import json
from typing import Any

from bench.operator import kinds
from bench.operator.manifests import differences, masked
from bench.operator.observer import late_children


def made(salt: str) -> dict[str, list[dict[str, Any]]]:
    """What a contestant makes of one ModelDeployment; `salt` goes into all that differs by nature."""
    pod_set, revision = f"model-00000-{salt}-1", f"model-00000-r{salt}"
    objects: dict[str, list[dict[str, Any]]] = {
        kind: [child("model-00000", number)] for number, kind in enumerate(kinds.CHILDREN)
    }
    objects["controllerrevisions"][0]["metadata"]["name"] = revision
    objects["controllerrevisions"][0]["metadata"]["annotations"] = {
        "modelpier.dev/started": f"2026-01-0{len(salt)}T00:00:00Z"
    }
    deployment = objects["deployments"][0]
    deployment["metadata"]["name"] = pod_set
    deployment["metadata"]["labels"]["modelpier.dev/pod-set-hash"] = salt
    deployment["spec"] = {"replicas": 2, "env": [{"name": "MODELPIER_PLAN_PUBLIC_KEY", "value": salt}]}
    plan = {"generation": len(salt), "models": [{"revision": revision}]}
    objects["configmaps"][0]["data"] = {"plan.json": json.dumps(plan), "plan.sig": salt}
    objects["services"][0]["spec"] = {"clusterIP": salt, "selector": {"set": pod_set}}
    md = {
        "metadata": {"name": "model-00000", "uid": f"uid-{salt}", "resourceVersion": "100"},
        "status": {"version": "3"},
    }
    return {**objects, "modeldeployments": [md]}


def child(name: str, number: int) -> dict[str, Any]:
    labels = {kinds.OWNER_LABEL: name}
    return {"metadata": {"name": name, "labels": labels, "uid": str(number), "resourceVersion": str(number + 1)}}


def test_names_hashes_keys_and_times_are_no_differences() -> None:
    assert differences(made("aaaa"), made("bbbbb"), ["model-00000"]) == []


def test_a_real_difference_is_named_by_its_path() -> None:
    theirs = made("bbbbb")
    theirs["deployments"][0]["spec"]["replicas"] = 3
    assert differences(made("aaaa"), theirs, ["model-00000"]) == ["deployments.spec.replicas: 2 | 3"]


def test_a_missing_child_is_a_difference() -> None:
    theirs = made("bbbbb")
    theirs["networkpolicies"] = []
    found = differences(made("aaaa"), theirs, ["model-00000"])
    assert found
    assert all(line.startswith("networkpolicies.") for line in found)


def test_another_plan_is_a_difference_whatever_its_signature() -> None:
    theirs = made("bbbbb")
    theirs["configmaps"][0]["data"]["plan.json"] = json.dumps({"generation": 1, "models": []})
    assert len(differences(made("aaaa"), theirs, ["model-00000"])) == 1


def test_masking_leaves_the_objects_alone() -> None:
    objects = made("aaaa")
    before = copy.deepcopy(objects)
    masked(objects, "model-00000")
    assert objects == before


def test_children_older_than_the_status_are_in_time() -> None:
    assert late_children(made("a")) == []


def test_children_that_come_after_the_status_are_late() -> None:
    objects = made("a")
    objects["services"][0]["metadata"]["resourceVersion"] = "101"
    objects["deployments"] = []
    assert sorted(late_children(objects)) == ["deployments of model-00000", "services of model-00000"]
