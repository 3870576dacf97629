"""What the chart lets the operator and the cluster's users do."""

from __future__ import annotations

from typing import Any

from .conftest import VALUES, Manifest, Render

LISTED = ("--set", "watchNamespaces={team-a,team-b}")


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [m for m in manifests if m["kind"] in kinds]


def operator_rules(manifests: list[Manifest]) -> list[Any]:
    roles = [
        m for m in of_kind(manifests, "Role", "ClusterRole") if m["metadata"]["name"].startswith("modelpier-operator")
    ]
    return [rule for role in roles for rule in role["rules"]]


def test_nothing_is_granted_by_wildcard(render: Render) -> None:
    for rule in operator_rules(render()):
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_secrets_of_users_stay_closed(render: Render) -> None:
    """The operator reads one Secret, its own, and can create one next to itself."""
    manifests = render()
    for role in of_kind(manifests, "ClusterRole"):
        assert not any("secrets" in rule["resources"] for rule in role["rules"])
    (own,) = of_kind(manifests, "Role")
    assert own["metadata"]["namespace"] == "modelpier-system"
    readable = [rule for rule in own["rules"] if "secrets" in rule["resources"] and rule["verbs"] != ["create"]]
    assert [rule["resourceNames"] for rule in readable] == [["modelpier-operator-plan-key"]]


def test_roles_and_rolebindings_cannot_be_written(render: Render) -> None:
    assert not any("rbac.authorization.k8s.io" in rule["apiGroups"] for rule in operator_rules(render()))


def test_listed_namespaces_need_no_right_in_the_whole_cluster(render: Render) -> None:
    manifests = render(*LISTED, "--set", "rbac.aggregateToDefaultRoles=false")
    assert not of_kind(manifests, "ClusterRole", "ClusterRoleBinding")
    expected = {"modelpier-system", "team-a", "team-b"}
    assert {m["metadata"]["namespace"] for m in of_kind(manifests, "Role")} == expected
    assert {m["metadata"]["namespace"] for m in of_kind(manifests, "RoleBinding")} == expected


def test_listed_namespaces_grant_the_same_save_for_nodes(render: Render) -> None:
    cluster_wide = [rule for rule in operator_rules(render()) if rule["resources"] != ["nodes"]]
    listed = operator_rules(render("--set", "watchNamespaces={team-a}"))
    assert sorted(map(str, cluster_wide)) == sorted(map(str, listed))


def test_bindings_name_the_account(render: Render) -> None:
    manifests = render("--values", str(VALUES / "everything.yaml"))
    (account,) = of_kind(manifests, "ServiceAccount")
    assert account["metadata"]["name"] == "sa"
    assert account["automountServiceAccountToken"] is False
    for binding in of_kind(manifests, "RoleBinding", "ClusterRoleBinding"):
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "sa", "namespace": "modelpier-system"}]


def test_others_can_grant_the_rights(render: Render) -> None:
    manifests = render("--set", "rbac.create=false,rbac.aggregateToDefaultRoles=false")
    assert not of_kind(manifests, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")


def test_users_rights_come_through_the_default_roles(render: Render) -> None:
    roles = {m["metadata"]["name"]: m for m in of_kind(render(), "ClusterRole")}
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert {k for k in roles["modelpier-view"]["metadata"]["labels"] if k.startswith(prefix)} == {
        f"{prefix}{role}" for role in ("view", "edit", "admin")
    }
    assert f"{prefix}view" not in roles["modelpier-edit"]["metadata"]["labels"]
    reading = {verb for rule in roles["modelpier-view"]["rules"] for verb in rule["verbs"]}
    assert reading == {"get", "list", "watch"}
    writable = {resource for rule in roles["modelpier-edit"]["rules"] for resource in rule["resources"]}
    assert writable == {"modeldeployments", "modeldeployments/scale"}, "status is the operator's alone"
