"""Pod templates: secure, bounded, canonical, and the same for the same wishes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from modelpier_operator import names
from modelpier_operator.decide import intent
from modelpier_operator.desired import pod
from modelpier_operator.desired.merge import canonical, merged
from modelpier_server import contract
from support.builders import KEYS, md, settings
from support.pages import blocks


def template(administrator: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    subject = md(**sections)
    return pod.template(subject, intent.of(subject["spec"]).spec, settings(**(administrator or {})), KEYS)


def server(rendered: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in rendered["spec"]["containers"] if c["name"] == names.CONTAINER)
    return found


def test_the_restricted_pod_security_standard() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    spec = template(uri="pvc://claim/m.onnx")["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        own = container["securityContext"]
        assert (own["allowPrivilegeEscalation"], own["capabilities"]) == (False, {"drop": ["ALL"]})
        assert own["readOnlyRootFilesystem"] is True
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir", "secret", "persistentVolumeClaim", "projected"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


def test_everything_that_is_written_has_a_limit_and_is_asked_for() -> None:
    rendered = template(resources={"modelStorage": "3Gi"})
    limits = {v["name"]: v["emptyDir"]["sizeLimit"] for v in rendered["spec"]["volumes"] if "emptyDir" in v}
    assert limits == {"models": "3Gi", "tmp": "64Mi"}
    amounts = server(rendered)["resources"]
    assert amounts["limits"]["ephemeral-storage"] == amounts["requests"]["ephemeral-storage"] == "3328Mi"
    environment = {e["name"]: e.get("value") for e in server(rendered)["env"]}
    assert environment[contract.ENV_MODEL_STORAGE] == str(3 * 1024**3)


@pytest.mark.parametrize(("timeout", "limit"), [(5, 30), (60, 60), (600, 600)])
def test_a_pod_outlives_its_drain_and_the_drain_the_longest_request(timeout: int, limit: int) -> None:
    rendered = template(server={"limits": {"requestTimeoutSeconds": timeout}})
    told = {e["name"]: e.get("value") for e in server(rendered)["env"]}
    assert told[contract.ENV_DRAIN_LIMIT] == str(limit)
    accepting = contract.DRAIN_ACCEPT_SECONDS + contract.GRPC_SETTLE_SECONDS
    assert 5 <= rendered["spec"]["terminationGracePeriodSeconds"] - accepting - limit <= 6


def test_a_slow_start_has_its_own_time() -> None:
    probe = server(template(server={"startupTimeoutSeconds": 1234}))["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 1234


def test_the_gpu_image_for_gpus_and_an_own_image_for_both() -> None:
    assert server(template())["image"] == "registry.example/server:1"
    assert server(template(gpu=1))["image"] == "registry.example/server-gpu:1"
    assert server(template(gpu=1, server={"image": "r.example/own:1"}))["image"] == "r.example/own:1"


def test_an_account_of_the_user_s_own_keeps_its_token() -> None:
    own = template(server={"serviceAccountName": "identity"})["spec"]
    assert own["serviceAccountName"] == "identity"
    assert "automountServiceAccountToken" not in own
    ours = template()["spec"]
    assert (ours["serviceAccountName"], ours["automountServiceAccountToken"]) == ("m-server", False)


@pytest.mark.parametrize("administrator", [{}, {"allow_pod_overrides": True}])
def test_overrides_only_where_they_are_allowed(administrator: dict[str, Any]) -> None:
    patch = {"spec": {"hostNetwork": True}}
    rendered = template(administrator, resources={"podTemplate": patch})
    assert ("hostNetwork" in rendered["spec"]) is bool(administrator)


def test_equal_wishes_give_equal_templates() -> None:
    first = template(resources={"cpu": "1000m", "memory": "2048Mi"})
    assert first == template(resources={"cpu": "1", "memory": "2Gi"}) == template()


def test_nothing_empty_goes_to_the_api_server() -> None:
    def walk(value: Any, path: str) -> None:
        assert value not in (None, "", []), path
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            walk(item, f"{path}.{key}")

    walk(template(), "template")


def test_a_strategic_merge() -> None:
    base = {
        "spec": {
            "containers": [{"name": "server", "image": "a", "env": [{"name": "A", "value": "1"}]}],
            "tolerations": [{"key": "old"}],
            "nodeSelector": {"zone": "a"},
        }
    }
    patch = {
        "spec": {
            "containers": [
                {"name": "server", "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]},
                {"name": "other", "image": "b"},
            ],
            "tolerations": [{"key": "new"}],
            "nodeSelector": None,
        }
    }
    assert merged(base, patch) == {
        "spec": {
            "containers": [
                {"name": "server", "image": "a", "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]},
                {"name": "other", "image": "b"},
            ],
            "tolerations": [{"key": "new"}],
        }
    }
    assert base["spec"]["nodeSelector"] == {"zone": "a"}, "arguments stay as they are"


def test_overrides_become_canonical() -> None:
    patch = {
        "spec": {
            "containers": [{"name": "x", "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}}, "command": []}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "2048Ki"}}, {"name": "w", "emptyDir": {}}],
        }
    }
    assert canonical(patch) == {
        "spec": {
            "containers": [{"name": "x", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "2Mi"}}, {"name": "w", "emptyDir": {}}],
        }
    }


def test_the_how_to_that_secures_the_server_makes_such_a_pod() -> None:
    (block,) = [b for b in blocks() if b.page.name == "secure-the-server.md" and "podTemplate" in b.text]
    patch = yaml.safe_load(block.text)["spec"]["resources"]["podTemplate"]
    rendered = template({"allow_pod_overrides": True}, resources={"podTemplate": patch})
    found = server(rendered)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert found[probe]["httpGet"]["port"] == contract.PROBE_PORT
        assert found[probe]["httpGet"]["scheme"] == "HTTP"
    assert found["readinessProbe"]["httpGet"]["path"] == contract.READY_PATH
    environment = {entry["name"]: entry["value"] for entry in found["env"]}
    assert {contract.ENV_TLS_CERT, contract.ENV_TLS_KEY, contract.ENV_API_KEYS, contract.ENV_PLAN_FILE} <= set(
        environment
    )
    mounted = {mount["name"]: mount["mountPath"] for mount in found["volumeMounts"]}
    assert environment[contract.ENV_TLS_CERT] == f"{mounted['tls']}/tls.crt"
    assert environment[contract.ENV_API_KEYS] == mounted["keys"]
    assert {"tls", "keys"} <= {volume["name"] for volume in rendered["spec"]["volumes"]}
