"""The operator with the rights of docs/reference/operator.md and no others, for a list of namespaces and for all."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from control_plane.operators import OperatorProcess, audit_lines, model_deployment, observed
from modelpier_cluster import ControlPlane
from support.control_plane import OPERATOR_NAMESPACE, missing, wait_until
from support.real_api import ApiServer

pytestmark = [pytest.mark.control_plane, pytest.mark.skipif(bool(missing()), reason=missing())]
Object = dict[str, Any]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
OWNED = ["get", "list", "watch", "create", "patch", "delete"]
SEEN = ["list", "watch"]
RULES = [
    {"apiGroups": ["modelpier.dev"], "resources": ["modeldeployments"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["modelpier.dev"], "resources": ["modeldeployments/status"], "verbs": ["patch"]},
    {"apiGroups": ["apps"], "resources": ["controllerrevisions", "deployments"], "verbs": OWNED},
    {"apiGroups": [""], "resources": ["configmaps", "services", "serviceaccounts"], "verbs": OWNED},
    {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": OWNED},
    {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": OWNED},
    {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": SEEN},
    {"apiGroups": [""], "resources": ["pods", "events"], "verbs": SEEN},
]
NODES = {"apiGroups": [""], "resources": ["nodes"], "verbs": SEEN}


def own_rules(name: str) -> list[Object]:
    lease = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    secret = {"apiGroups": [""], "resources": ["secrets"]}
    return [
        {**lease, "verbs": ["create"]},
        {**lease, "resourceNames": [name], "verbs": ["get", "update"]},
        {**secret, "verbs": ["create"]},
        {**secret, "resourceNames": [name], "verbs": ["get"]},
    ]


class Account:
    """A ServiceAccount of the test's own in the operator's namespace."""

    def __init__(self, control_plane: ControlPlane, server: ApiServer, name: str, folder: Path) -> None:
        self._server, self.name = server, name
        server.call("POST", f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/serviceaccounts", {"metadata": {"name": name}})
        self.grant("Role", own_rules(name), OPERATOR_NAMESPACE)
        token = control_plane.kubectl("create", "token", name, "--namespace", OPERATOR_NAMESPACE).strip()
        config = json.loads(control_plane.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(config))

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{OPERATOR_NAMESPACE}:{self.name}"

    def grant(self, kind: str, rules: list[Object], namespace: str | None = None) -> None:
        place = f"{RBAC}/namespaces/{namespace}" if namespace else RBAC
        metadata = {"name": self.name}
        self._server.call("POST", f"{place}/{kind.lower()}s", {"metadata": metadata, "rules": rules})
        subject = {"kind": "ServiceAccount", "name": self.name, "namespace": OPERATOR_NAMESPACE}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": self.name}
        binding = {"metadata": metadata, "roleRef": reference, "subjects": [subject]}
        self._server.call("POST", f"{place}/{kind.lower()}bindings", binding)

    def environment(self, **more: str) -> dict[str, str]:
        return {"MODELPIER_LEASE_NAME": self.name, "MODELPIER_PLAN_KEY_SECRET": self.name, **more}


@pytest.fixture
def account(shared_control_plane: ControlPlane, api_server: ApiServer, namespace: str, tmp_path: Path) -> Account:
    return Account(shared_control_plane, api_server, f"operator-{namespace}", tmp_path)


def test_a_list_of_namespaces_needs_roles_alone(
    shared_control_plane: ControlPlane, api_server: ApiServer, account: Account, namespace: str
) -> None:
    offset = shared_control_plane.audit_log.stat().st_size
    second, outside = f"{namespace}-b", f"{namespace}-outside"
    for name in (second, outside):
        api_server.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    for name in (namespace, second):
        account.grant("Role", RULES, name)
    watched = account.environment(MODELPIER_WATCH_NAMESPACES=f"{namespace},{second}")
    with OperatorProcess(account.kubeconfig, watched) as operator:
        operator.wait_ready().wait_leading()
        for name in (namespace, second, outside):
            api_server.create("modeldeployments", model_deployment("m", name, replicas=2))
        for name in (namespace, second):
            wait_until("the status is written", partial(observed, api_server, "m", name))
        _scale(api_server, namespace, 1)
        wait_until("a child was deleted", lambda: not api_server.list("poddisruptionbudgets", namespace))
        operator.wait_idle()
    assert api_server.list("deployments", outside) == []
    assert refused(shared_control_plane, account, offset) == []


def test_all_namespaces_need_a_cluster_role(
    shared_control_plane: ControlPlane, api_server: ApiServer, account: Account, namespace: str
) -> None:
    offset = shared_control_plane.audit_log.stat().st_size
    account.grant("ClusterRole", [*RULES, NODES])
    with OperatorProcess(account.kubeconfig, account.environment()) as operator:
        operator.wait_ready().wait_leading()
        api_server.create("modeldeployments", model_deployment("m", namespace))
        wait_until("the status is written", lambda: observed(api_server, "m", namespace))
        operator.wait_idle()
    assert refused(shared_control_plane, account, offset) == []


def test_without_the_right_to_see_nodes_it_works_as_well(
    api_server: ApiServer, account: Account, namespace: str
) -> None:
    account.grant("ClusterRole", RULES)
    with OperatorProcess(account.kubeconfig, account.environment()) as operator:
        operator.wait_ready().wait_leading()
        api_server.create("modeldeployments", model_deployment("m", namespace))
        wait_until("the status is written", lambda: observed(api_server, "m", namespace))


def refused(control_plane: ControlPlane, account: Account, offset: int) -> list[str]:
    return [
        f"{event['verb']} {event['requestURI']}"
        for event in audit_lines(control_plane.audit_log, offset)
        if event["user"]["username"] == account.user and event["responseStatus"]["code"] == 403
    ]


def _scale(server: ApiServer, namespace: str, replicas: int) -> None:
    server.patch("modeldeployments", namespace, "m", {"spec": {"replicas": replicas}})
