"""The CRD on a real API server: what it takes, what it refuses and with which words, and what kubectl makes of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from modelpier_cluster import ClusterError, ControlPlane
from modelpier_cluster.build import KUBE, programs
from modelpier_operator.api import crd, rules
from modelpier_operator.api.normalise import normalise
from modelpier_operator.api.quantity import normalise_quantity, quantity_value
from modelpier_operator.api.v1alpha1 import parse_spec
from support.api_server import GROUP_PATH, ApiServer
from support.specs import NO_PARTS, NO_RANGES, broken_values, deployment, spec_values

ROOT = Path(__file__).resolve().parents[2]
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def _missing() -> str:
    try:
        programs([KUBE])
    except ClusterError as error:
        return str(error)
    return "" if shutil.which("openssl") else "openssl is missing: install the package openssl"


pytestmark = [pytest.mark.control_plane, pytest.mark.skipif(bool(_missing()), reason=_missing())]


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        running.kubectl("apply", "--server-side", "-f", str(ROOT / "crds" / crd.FILE))
        running.kubectl("wait", "--for=condition=Established", f"crd/{crd.NAME}", "--timeout=30s")
        yield running


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server = ApiServer(control_plane, tmp_path_factory.mktemp("api"))
    yield server
    server.close()


@pytest.fixture
def stored(api: ApiServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """A ModelDeployment that is there for this test alone."""
    name = request.node.name.replace("_", "-").partition("[")[0][:60].strip("-")
    assert api.call("POST", GROUP_PATH, deployment(name, replicas=2)).code == 201
    yield f"{GROUP_PATH}/{name}"
    api.call("DELETE", f"{GROUP_PATH}/{name}")


# ------------------------------------------------------------------------------------------------ the CRD itself
def test_the_api_server_finds_nothing_wrong_with_it(api: ApiServer) -> None:
    conditions = api.call("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd.NAME}").body["status"]
    found = {c["type"]: c["status"] for c in conditions["conditions"]}
    assert found == {"NamesAccepted": "True", "Established": "True"}  # NonStructuralSchema would stand here


def test_it_is_stored_as_it_was_written(api: ApiServer) -> None:
    spec = api.call("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd.NAME}").body["spec"]
    assert spec["versions"] == crd.crd()["spec"]["versions"]


# ------------------------------------------------------------------------------------------------ agreement
def taken_by_types(raw: dict[str, Any]) -> bool:
    try:
        parse_spec(raw)
    except ValidationError:
        return False
    return True


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(raw=spec_values)
def test_what_the_types_take_the_api_server_takes(api: ApiServer, raw: dict[str, Any]) -> None:
    answer = api.try_out(deployment() | {"spec": raw})
    assert taken_by_types(raw)
    assert answer.code == 201, answer.message
    # Its defaults are the types' own: the same intent with and without them.
    assert normalise(parse_spec(answer.body["spec"])) == normalise(parse_spec(raw))
    assert parse_spec(answer.body["spec"]) == parse_spec(raw)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(raw=broken_values)
def test_what_the_types_refuse_the_api_server_refuses(api: ApiServer, raw: dict[str, Any]) -> None:
    assert not taken_by_types(raw)
    assert api.try_out(deployment() | {"spec": raw}).code in {400, 422}


@pytest.mark.parametrize(
    "block",
    [
        *({"cidr": text} for text in NO_RANGES),
        *({"cidr": "198.18.0.0/16", "except": [text]} for text in NO_PARTS),
    ],
    ids=str,
)
def test_what_is_no_range_of_addresses_is_refused(api: ApiServer, block: dict[str, Any]) -> None:
    """Each of them: two parsers must agree."""
    manifest = deployment(access={"from": [{"ipBlock": block}]})
    assert not taken_by_types(manifest["spec"])
    assert api.try_out(manifest).code == 422


def test_defaults_stand_in_the_object(api: ApiServer) -> None:
    written = api.try_out(deployment()).body["spec"]
    assert written == {
        "model": {
            "uri": "s3://models/resnet50/model.onnx",
            "tests": {"enabled": True, "relativeTolerance": 0.001, "absoluteTolerance": 0.00001},
        },
        "replicas": 1,
        "resources": {"cpu": "1", "gpu": 0, "gpuResource": "nvidia.com/gpu", "memory": "2Gi", "modelStorage": "10Gi"},
        "rollout": {
            "strategy": "Auto",
            "capacityWaitSeconds": 60,
            "progressDeadlineSeconds": 900,
            "revisionHistoryLimit": 10,
        },
        "server": {
            "instances": 0,
            "threads": 0,
            "isolated": False,
            "hooks": False,
            "graphOptimization": "All",
            "batching": {"enabled": True, "maxRows": 64, "maxDelayMicroseconds": 0, "mask": ""},
            "limits": {
                "maxQueue": 1024,
                "requestTimeoutSeconds": 60,
                "maxBodyBytes": 67108864,
                "maxQueueWaitMilliseconds": 0,
                "priorityLevels": 1,
                "runTimeoutSeconds": 0,
            },
            "startupTimeoutSeconds": 600,
            "runtimeUpgrade": "Manual",
        },
    }


# ------------------------------------------------------------------------------------------------ every rule
ALL: dict[str, Any] = {"podSelector": {}}
RANGE = "198.18.0.0/16"
CUDA, CPU = {"name": "CUDAExecutionProvider"}, {"name": "CPUExecutionProvider"}
BROKEN_RULES = [
    (rules.MODEL, 0, "spec.model.uri", {"model": {"uri": "models/resnet50.onnx"}}),
    (rules.MODEL, 1, "spec.model.uri", {"model": {"uri": "s3://models"}}),
    (rules.MODEL, 2, "spec.model.uri", {"model": {"uri": "hf://org/repo"}}),
    (rules.MODEL, 3, "spec.model.uri", {"model": {"uri": "pvc://Claim/model.onnx"}}),
    (rules.MODEL, 4, "spec.model.uri", {"model": {"uri": "https://me:secret@host/model.onnx"}}),
    (rules.MODEL, 5, "spec.model.uri", {"model": {"uri": "https://host/models/?page=2"}}),
    (rules.MODEL, 6, "spec.model.uri", {"model": {"uri": "file://models/model.onnx"}}),
    (rules.MODEL, 7, "spec.model.uri", {"model": {"uri": "s3://models/../model.onnx"}}),
    (rules.MODEL, 8, "spec.model.credentialsSecret", {"model": {"uri": "pvc://a/b", "credentialsSecret": "s3"}}),
    (rules.BATCHING, 0, "spec.server.batching.mask", {"server": {"batching": {"padding": {"ids": 0}}}}),
    (rules.SERVER, 0, "spec.server.executionProviders", {"server": {"executionProviders": [CPU, CPU]}}),
    (rules.SERVER, 1, "spec.server.imagePullSecrets", {"server": {"imagePullSecrets": ["a", "b", "a"]}}),
    (rules.SERVER, 2, "spec.server.customOperators", {"server": {"customOperators": ["a.so", "b.so", "a.so"]}}),
    (
        rules.TOLERATION,
        0,
        "spec.resources.tolerations[0].value",
        {"resources": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
    ),
    (rules.TOLERATION, 1, "spec.resources.tolerations[0].key", {"resources": {"tolerations": [{"value": "b"}]}}),
    (
        rules.TOLERATION,
        2,
        "spec.resources.tolerations[0].tolerationSeconds",
        {"resources": {"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 3}]}},
    ),
    (rules.RESOURCES, 0, "spec.resources.cpu", {"resources": {"cpu": "0m"}}),
    (rules.RESOURCES, 1, "spec.resources.memory", {"resources": {"memory": "0Gi"}}),
    (rules.RESOURCES, 2, "spec.resources.modelStorage", {"resources": {"modelStorage": "0"}}),
    (rules.RESOURCES, 3, "spec.resources.cpuLimit", {"resources": {"cpu": "2", "cpuLimit": "1999m"}}),
    (rules.RESOURCES, 4, "spec.resources.gpuResource", {"resources": {"gpuResource": "batch.kubernetes.io/gpu"}}),
    (rules.ROLLOUT, 0, "spec.rollout.capacityWaitSeconds", {"rollout": {"capacityWaitSeconds": 900}}),
    (rules.PEER, 0, "spec.access.from[1].podSelector", {"access": {"from": [ALL, {}]}}),
    (rules.PEER, 1, "spec.access.from[0].ipBlock", {"access": {"from": [{**ALL, "ipBlock": {"cidr": RANGE}}]}}),
    (
        rules.REQUIREMENT,
        0,
        "spec.access.from[0].podSelector.matchExpressions[0].values",
        {"access": {"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}]}},
    ),
    (
        rules.IP_BLOCK,
        0,
        "spec.access.from[0].ipBlock.cidr",
        {"access": {"from": [{"ipBlock": {"cidr": "198.18.0.1/16", "except": ["198.18.7.0/24"]}}]}},
    ),
    (
        rules.IP_BLOCK,
        1,
        "spec.access.from[0].ipBlock.except",
        {"access": {"from": [{"ipBlock": {"cidr": RANGE, "except": ["198.18.7.0/24", RANGE]}}]}},
    ),
    (rules.SPEC, 0, "spec.server.executionProviders", {"server": {"executionProviders": [CUDA, CPU]}}),
    (rules.SPEC, 1, "spec.server.executionProviders", {"resources": {"gpu": 1, "gpuResource": "amd.com/gpu"}}),
]


@pytest.mark.parametrize(("section", "index", "field", "change"), BROKEN_RULES)
def test_a_rule_that_is_broken_says_where_and_what_to_write(
    api: ApiServer, section: tuple[rules.Rule, ...], index: int, field: str, change: dict[str, Any]
) -> None:
    answer = api.try_out(deployment(**change))
    assert answer.code == 422
    assert {field: f"Invalid value: {section[index].message}"} == {
        where: text.replace('"object": ', "") for where, text in answer.causes.items()
    }


def test_every_rule_is_broken_above() -> None:
    sections = (
        *(rules.MODEL, rules.BATCHING, rules.SERVER, rules.TOLERATION, rules.RESOURCES, rules.ROLLOUT, rules.SPEC),
        *(rules.PEER, rules.REQUIREMENT, rules.IP_BLOCK),
    )
    broken = {(section, index) for section, index, _, _ in BROKEN_RULES}
    assert broken == {(section, index) for section in sections for index in range(len(section))}


@pytest.mark.parametrize("name", ["1st", "a.b", "a" * 64])
def test_a_name_that_no_service_may_have_is_refused(api: ApiServer, name: str) -> None:
    answer = api.try_out(deployment(name))
    assert answer.code == 422
    assert f"metadata.name {rules.NAME.message}" in answer.message


def test_a_name_as_long_as_a_services(api: ApiServer) -> None:
    assert api.try_out(deployment("a" * 63)).code == 201
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a" * 63},
        "spec": {"ports": [{"port": 80}]},
    }
    assert api.call("POST", "/api/v1/namespaces/default/services?dryRun=All", service).code == 201


@pytest.mark.parametrize(
    "path", ["nodel", "model.url", "access.to", "server.batching.maxRow", "resources.podTemplate.containers"]
)
def test_an_unknown_field_is_refused(api: ApiServer, path: str) -> None:
    manifest = deployment()
    *outer, last = path.split(".")
    section = manifest["spec"]
    for step in outer:
        section = section.setdefault(step, {})
    section[last] = "x"
    answer = api.try_out(manifest)
    assert answer.code == 400
    assert f'unknown field "spec.{path}"' in answer.message


def test_an_override_keeps_what_it_says(api: ApiServer) -> None:
    override = {"spec": {"containers": [{"name": "server", "env": [{"name": "A", "value": ""}]}], "nodeName": None}}
    written = api.try_out(deployment(resources={"podTemplate": override}))
    assert written.body["spec"]["resources"]["podTemplate"] == override


# ------------------------------------------------------------------------------------------------ subresources
def test_scale_is_read_and_written(api: ApiServer, stored: str) -> None:
    scale = api.call("GET", f"{stored}/scale")
    assert (scale.code, scale.body["spec"]) == (200, {"replicas": 2})
    assert api.call("PUT", f"{stored}/scale", scale.body | {"spec": {"replicas": 5}}).code == 200
    assert api.call("GET", stored).body["spec"]["replicas"] == 5
    api.merge(f"{stored}/status", {"status": {"replicas": 3, "selector": "modelpier.dev/pod-set=a"}})
    status = api.call("GET", f"{stored}/scale").body["status"]
    assert status == {"replicas": 3, "selector": "modelpier.dev/pod-set=a"}


def test_scale_is_bounded(api: ApiServer, stored: str) -> None:
    scale = api.call("GET", f"{stored}/scale").body
    assert api.call("PUT", f"{stored}/scale", scale | {"spec": {"replicas": 10001}}).code == 422


def condition(kind: str = "Ready", **changes: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": "2030-01-01T00:00:00Z",
        "reason": "Serving",
        "message": "2 pods serve.",
    } | changes


STATUS = {
    "observedGeneration": 1,
    "url": "http://resnet50.default.svc.cluster.local",
    "version": "3",
    "replicas": 2,
    "readyReplicas": 2,
    "selector": "modelpier.dev/deployment=resnet50",
    "conditions": [condition(), condition("Available")],
    "revisions": [
        {
            "name": "resnet50-0123456789",
            "version": "3",
            "digest": "sha256:" + "a" * 64,
            "podSet": "resnet50-0123456789-0",
            "weight": 100,
            "replicas": 2,
            "readyReplicas": 2,
            "phase": "Serving",
            "reason": "Serving",
            "message": "2 pods serve.",
        }
    ],
    "rollout": {"phase": "Complete", "strategy": "Surge", "reason": "no GPU is asked for"},
    "timings": {"schedule": 0.0, "pull": 2.0, "download": 0.125, "load": 0.5, "warmUp": 0.25},
}


def test_status_keeps_every_field(api: ApiServer, stored: str) -> None:
    answer = api.merge(f"{stored}/status?fieldValidation=Strict", {"status": STATUS})
    assert (answer.code, answer.message) == (200, "")
    assert answer.body["status"] == STATUS


def test_status_and_spec_do_not_touch_each_other(api: ApiServer, stored: str) -> None:
    changed = api.merge(f"{stored}/status", {"status": {"version": "3"}, "spec": {"replicas": 7}}).body
    assert changed["spec"]["replicas"] == 2
    assert changed["metadata"]["generation"] == 1
    changed = api.merge(stored, {"status": {"version": "4"}, "spec": {"replicas": 7}}).body
    assert (changed["spec"]["replicas"], changed["status"]) == (7, {"version": "3"})


@pytest.mark.parametrize("change", [{"status": "Maybe"}, {"lastTransitionTime": "today"}, {"reason": "two words"}])
def test_a_condition_that_is_none_is_refused(api: ApiServer, stored: str, change: dict[str, Any]) -> None:
    assert api.merge(f"{stored}/status", {"status": {"conditions": [condition(**change)]}}).code == 422


# ------------------------------------------------------------------------------------------------ kubectl
def test_columns(api: ApiServer, stored: str) -> None:
    api.merge(f"{stored}/status", {"status": STATUS})
    table = api.call("GET", stored, headers={"Accept": TABLE}).body
    columns = [c["name"] for c in table["columnDefinitions"]]
    row = dict(zip(columns, table["rows"][0]["cells"], strict=True))
    shown = [c["name"] for c in table["columnDefinitions"] if c["priority"] == 0]
    assert shown == ["Name", "URL", "Version", "Ready", "Replicas", "Reason", "Age"]
    assert (row["URL"], row["Version"], row["Ready"], row["Replicas"]) == (STATUS["url"], "3", "True", 2)
    assert (row["Reason"], row["Wanted"], row["Model"]) == ("Serving", 2, "s3://models/resnet50/model.onnx")
    assert row["Message"] == "2 pods serve."


def test_short_name_and_categories(control_plane: ControlPlane, stored: str) -> None:
    name = stored.rpartition("/")[2]
    for kind in ("md", "modelpier", "ml", "modeldeployment"):
        assert control_plane.kubectl("get", kind, "-o", "name") == f"modeldeployment.modelpier.dev/{name}\n"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("md", "A model, served"),
        ("md.spec", "What is wanted: a model, and how it is served."),
        ("md.spec.model", "<string> -required-"),
        ("md.spec.model.uri", "Where the model is: s3://bucket/key"),
        ("md.spec.server.executionProviders", "ONNX Runtime execution providers in order of preference"),
        ("md.spec.resources.podTemplate", "The last resort"),
        ("md.spec.access", "Who may connect to the pods."),
        ("md.spec.access.from", "Empty: everybody."),
        ("md.spec.access.from.namespaceSelector.matchExpressions.operator", "In, NotIn: its value is one of"),
        ("md.spec.access.from.ipBlock.except", "Parts of it that are left out."),
        ("md.spec.rollout.strategy", "Surge: new pods beside the old ones."),
        ("md.status.conditions.reason", "Root cause, one of a closed set"),
    ],
)
def test_explain(control_plane: ControlPlane, path: str, words: str) -> None:
    told = control_plane.kubectl("explain", path)
    assert words in " ".join(told.split())
    assert "<no description>" not in told.partition("FIELDS:")[0]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_is_accepted(control_plane: ControlPlane, path: Path) -> None:
    kinds = [part["kind"] for part in yaml.safe_load_all(path.read_text())]
    told = control_plane.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", str(path))
    assert "ModelDeployment" in kinds
    assert told.count("serverside-applied (server dry run)") == len(kinds)


# ------------------------------------------------------------------------------------------------ quantities
quantities = st.one_of(
    st.sampled_from(["1000m", "1024Mi", "1.5", "0.5Gi", "007Mi", "1.500", "1.1Ki", "16Ei", "1.0001", "100e1", "12E"]),
    st.builds(
        lambda whole, part, suffix: f"{whole}{part}{suffix}",
        st.integers(0, 10**6),
        st.sampled_from(["", ".5", ".25", ".125", ".0", ".001", ".0001"]),
        st.sampled_from(["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", "Pi", "e3", "e-1"]),
    ),
)


def printed(api: ApiServer, amounts: Sequence[str]) -> list[str]:
    """What the API server makes of quantities, each as the CPU request of a container."""
    template = {
        "metadata": {"labels": {"app": "a"}},
        "spec": {
            "containers": [
                {"name": f"c{index}", "image": "a", "resources": {"requests": {"cpu": amount}}}
                for index, amount in enumerate(amounts)
            ]
        },
    }
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "quantities"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template},
    }
    answer = api.call("POST", "/apis/apps/v1/namespaces/default/deployments?dryRun=All", manifest)
    assert answer.code == 201, answer.message
    containers = answer.body["spec"]["template"]["spec"]["containers"]
    return [container["resources"]["requests"]["cpu"] for container in containers]


@settings(max_examples=30, deadline=None)
@given(written=st.lists(quantities, min_size=20, max_size=40))
def test_canonical_quantities_are_left_alone_and_mean_the_same(api: ApiServer, written: list[str]) -> None:
    canonical = [normalise_quantity(amount) for amount in written]
    assert printed(api, canonical) == canonical
    assert [quantity_value(p) for p in printed(api, written)] == [quantity_value(c) for c in canonical]
