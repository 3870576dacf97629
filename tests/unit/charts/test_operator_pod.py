"""The operator's pod as the chart makes it: its environment is what the operator reads, and it is a restricted pod."""

from __future__ import annotations

from typing import Any

import pytest

from modelpier_operator.settings import Settings, from_environment

from .conftest import VALUES, Manifest, Render, only

FIELDS = {"metadata.namespace": "modelpier-system", "metadata.name": "modelpier-operator-1"}


def pod_spec(manifests: list[Manifest]) -> Any:
    return only(manifests, "Deployment")["spec"]["template"]["spec"]


def settings(manifests: list[Manifest]) -> Settings:
    """What the operator makes of its environment."""
    environment = {}
    for variable in pod_spec(manifests)["containers"][0]["env"]:
        source = variable.get("valueFrom")
        environment[variable["name"]] = FIELDS[source["fieldRef"]["fieldPath"]] if source else variable["value"]
    return from_environment(environment)


def test_defaults(render: Render) -> None:
    assert settings(render()) == Settings(
        server_image="registry.example.com/modelpier/modelpier-server:0.1.0",
        server_image_gpu="registry.example.com/modelpier/modelpier-server-gpu:0.1.0",
        operator_namespace="modelpier-system",
        plan_key_secret="modelpier-operator-plan-key",
        lease_name="modelpier-operator",
    )


def test_every_value_reaches_the_operator(render: Render) -> None:
    image = "registry.example:5000/mirror/modelpier-server"
    assert settings(render("--values", str(VALUES / "everything.yaml"))) == Settings(
        server_image=f"{image}:0.1.0",
        server_image_gpu=f"{image}-gpu:0.1.0",
        operator_namespace="modelpier-system",
        image_pull_policy="Always",
        image_pull_secrets=("pull", "second"),
        cluster_domain="k8s.example",
        allow_pod_overrides=True,
        plan_key_secret="mp-operator-plan-key",
        proxy_env={
            "HTTP_PROXY": "http://proxy.example:3128",
            "HTTPS_PROXY": "http://proxy.example:3128",
            "NO_PROXY": ".svc,.cluster.local",
        },
        ca_config_map="ca",
        lease_name="mp-operator",
        lease_duration=30.0,
        renew_deadline=20.0,
        retry_period=2.0,
        workers=4,
        log_level="DEBUG",
    )


def test_listed_namespaces(render: Render) -> None:
    assert settings(render("--set", "watchNamespaces={a,b,a}")).watch_namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("arguments", "reference"),
    [
        ([], "registry.example.com/modelpier/modelpier-operator:0.1.0"),
        (["--set", "operator.image.tag=dev"], "registry.example.com/modelpier/modelpier-operator:dev"),
        (["--set", "image.registry=198.51.100.1:5000/"], "198.51.100.1:5000/modelpier-operator:0.1.0"),
        (
            ["--set", f"operator.image.digest=sha256:{'a' * 64}"],
            f"registry.example.com/modelpier/modelpier-operator:0.1.0@sha256:{'a' * 64}",
        ),
    ],
)
def test_image_references(arguments: list[str], reference: str, render: Render) -> None:
    manifests = render(*arguments)
    assert pod_spec(manifests)["containers"][0]["image"] == reference
    assert only(manifests, "Pod")["spec"]["containers"][0]["image"] == reference


def restricted(spec: Any) -> bool:
    """The Pod Security Standard `restricted` (kubernetes.io), and a root file system that cannot be written."""
    pod = spec["securityContext"]
    containers = [container["securityContext"] for container in spec["containers"]]
    return (
        pod["runAsNonRoot"] is True
        and pod["runAsUser"] > 0
        and pod["seccompProfile"] == {"type": "RuntimeDefault"}
        and all(c["allowPrivilegeEscalation"] is False and c["capabilities"] == {"drop": ["ALL"]} for c in containers)
        and all(c["readOnlyRootFilesystem"] is True for c in containers)
        and not spec.get("volumes")
    )


def test_pods_are_restricted(render: Render) -> None:
    manifests = render()
    assert restricted(pod_spec(manifests))
    assert restricted(only(manifests, "Pod")["spec"])


def test_the_name_that_network_policies_of_models_admit_rendered_only(render: Render) -> None:
    deployment = only(render("--set", "fullnameOverride=other,nameOverride=another"), "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "modelpier-operator"
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize(("replicas", "budgets"), [(0, 0), (1, 0), (2, 1)])
def test_disruption_budget_from_two_replicas_on(replicas: int, budgets: int, render: Render) -> None:
    manifests = render("--set", f"operator.replicas={replicas}")
    assert only(manifests, "Deployment")["spec"]["replicas"] == replicas
    assert sum(m["kind"] == "PodDisruptionBudget" for m in manifests) == budgets


def test_labels_of_the_pods_win_over_those_of_all_objects(render: Render) -> None:
    manifests = render("--set", "commonLabels.team=a,operator.podLabels.team=b")
    deployment = only(manifests, "Deployment")
    assert deployment["metadata"]["labels"]["team"] == "a"
    assert deployment["spec"]["template"]["metadata"]["labels"]["team"] == "b"
