"""One operator process against a real API server: what it writes, and above all what it does not."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from control_plane.operators import OperatorProcess, model_deployment, observed
from modelpier_cluster import ControlPlane
from modelpier_cluster.audit import recording, writes
from modelpier_operator import names
from modelpier_operator.cluster.kinds import CHILDREN
from modelpier_server.contract import ADMIN_PORT
from support.control_plane import missing, wait_until
from support.real_api import ApiServer

pytestmark = [pytest.mark.control_plane, pytest.mark.skipif(bool(missing()), reason=missing())]
AGENT = "modelpier-operator"


@pytest.fixture(scope="module")
def operator(shared_control_plane: ControlPlane) -> Iterator[OperatorProcess]:
    with OperatorProcess(shared_control_plane.kubeconfig) as process:
        yield process.wait_ready().wait_leading()


def test_each_child_and_the_status_are_written_once(
    shared_control_plane: ControlPlane, api_server: ApiServer, operator: OperatorProcess, namespace: str
) -> None:
    with recording(shared_control_plane.audit_log) as recorded:
        for number in range(20):
            api_server.create("modeldeployments", model_deployment(f"md-{number}", namespace, replicas=2))
        for number in range(20):
            wait_until("the status is written", partial(observed, api_server, f"md-{number}", namespace))
        operator.wait_idle()
    recorded = [event for event in recorded if event.get("objectRef", {}).get("namespace") == namespace]
    counted = Counter(line.split()[1] for line in writes(recorded, user_agent=AGENT))
    assert counted == {**dict.fromkeys((k.plural for k in CHILDREN.values()), 20), "modeldeployments/status": 20}
    reads = [e for e in recorded if e["verb"] == "get" and e.get("userAgent", "").startswith(AGENT)]
    assert reads == [], "the caches know all that a first pass asks"


def test_applying_twice_and_a_restart_write_nothing(
    shared_control_plane: ControlPlane, api_server: ApiServer, operator: OperatorProcess, namespace: str
) -> None:
    made = api_server.create("modeldeployments", model_deployment("m", namespace))
    wait_until("the status is written", lambda: observed(api_server, "m", namespace))
    operator.wait_idle()
    with recording(shared_control_plane.audit_log) as recorded:
        api_server.patch("modeldeployments", namespace, "m", {"spec": made["spec"]})
        with OperatorProcess(shared_control_plane.kubeconfig, {"MODELPIER_LEASE_NAME": "another"}) as second:
            second.wait_ready().wait_leading().wait_idle()
            operator.wait_idle()
    assert writes(recorded, user_agent=AGENT, ignore_leases=True) == []


def test_at_rest_only_the_lease_is_written(
    shared_control_plane: ControlPlane, api_server: ApiServer, operator: OperatorProcess, namespace: str
) -> None:
    """For ten seconds; tests/e2e/test_rest.py looks for ten minutes, with pods."""
    api_server.create("modeldeployments", model_deployment("m", namespace, replicas=2))
    wait_until("the status is written", lambda: observed(api_server, "m", namespace))
    operator.wait_idle()
    with recording(shared_control_plane.audit_log) as recorded:
        end = time.monotonic() + 10
        wait_until("ten seconds are over", lambda: time.monotonic() > end, 20)
    written = writes(recorded, user_agent=AGENT)
    assert written
    assert {line.split()[1] for line in written} == {"leases"}


def test_a_foreign_object_is_never_touched(api_server: ApiServer, operator: OperatorProcess, namespace: str) -> None:
    theirs = {
        "metadata": {"name": "m", "namespace": namespace},
        "spec": {"selector": {"app": "x"}, "ports": [{"port": 1}]},
    }
    before = api_server.create("services", theirs)
    api_server.create("modeldeployments", model_deployment("m", namespace))
    wait_until("the conflict is told", lambda: "NameConflict" in _reasons(api_server, namespace, "m"))
    operator.wait_idle()
    assert api_server.get("services", namespace, "m") == before
    api_server.delete("services", namespace, "m")
    wait_until("ours is made once the name is free", lambda: api_server.get("services", namespace, "m") is not None, 90)
    wait_until("and that is told", lambda: "NameConflict" not in _reasons(api_server, namespace, "m"))


def test_what_is_no_longer_wanted_goes(api_server: ApiServer, operator: OperatorProcess, namespace: str) -> None:
    """The first change of an object that was made by POST must be able to take something away."""
    api_server.create("modeldeployments", model_deployment("m", namespace, replicas=2))
    wait_until("the budget is made", lambda: api_server.get("poddisruptionbudgets", namespace, "m") is not None)
    _edit(api_server, namespace, "m", replicas=1)
    wait_until("the budget is gone", lambda: api_server.get("poddisruptionbudgets", namespace, "m") is None)
    [deployment] = _owned(api_server, "deployments", namespace)
    assert deployment["spec"]["replicas"] == 1
    operator.wait_idle()


def test_somebody_elses_edit_of_a_child_is_undone(
    api_server: ApiServer, operator: OperatorProcess, namespace: str
) -> None:
    api_server.create("modeldeployments", model_deployment("m", namespace))
    wait_until("the service is made", lambda: api_server.get("services", namespace, "m") is not None)
    service = api_server.get("services", namespace, "m")
    assert service
    wanted = dict(service["spec"]["selector"])
    service["spec"]["selector"] = {"app": "elsewhere"}
    api_server.replace("services", service)

    def selector() -> object:
        live = api_server.get("services", namespace, "m")
        return live and live["spec"]["selector"]

    wait_until("the selector is back", lambda: selector() == wanted)
    operator.wait_idle()


def test_deleted_children_come_back(api_server: ApiServer, operator: OperatorProcess, namespace: str) -> None:
    api_server.create("modeldeployments", model_deployment("m", namespace))
    wait_until("the status is written", lambda: observed(api_server, "m", namespace))
    for kind in CHILDREN.values():
        for child in _owned(api_server, kind.plural, namespace):
            api_server.delete(kind.plural, namespace, child["metadata"]["name"])
    wait_until("the deployment is back", lambda: bool(_owned(api_server, "deployments", namespace)))
    wait_until("the service is back", lambda: bool(_owned(api_server, "services", namespace)))
    operator.wait_idle()


def test_who_may_connect_is_narrowed_and_nothing_else_changes_rendered_only(
    shared_control_plane: ControlPlane, api_server: ApiServer, operator: OperatorProcess, namespace: str
) -> None:
    api_server.create("modeldeployments", model_deployment("m", namespace))
    wait_until("the status is written", lambda: observed(api_server, "m", namespace))
    operator.wait_idle()
    assert _callers(api_server, namespace) == [None]
    clients, office = {"podSelector": {"matchLabels": {"app": "shop"}}}, {"ipBlock": {"cidr": "198.18.0.0/16"}}
    monitoring: Any = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "prometheus"}}}
    peers: Any
    for peers in ([clients, monitoring, office], [office], None):
        with recording(shared_control_plane.audit_log) as recorded:
            _edit(api_server, namespace, "m", access={"from": peers})
            wait_until("the status is written", lambda: observed(api_server, "m", namespace))
            operator.wait_idle()
        assert _callers(api_server, namespace) == [peers]
        written = Counter(line.split()[1] for line in writes(recorded, user_agent=AGENT, ignore_leases=True))
        assert written.keys() == {"networkpolicies", "modeldeployments/status"}


def test_narrowed_access_is_applied_twice_and_written_once(
    shared_control_plane: ControlPlane, api_server: ApiServer, operator: OperatorProcess, namespace: str
) -> None:
    """Whatever the API server leaves out or spells otherwise would look changed for ever."""
    wanted = model_deployment("m", namespace)
    wanted["spec"]["access"] = {
        "from": [
            {"podSelector": {"matchLabels": {}, "matchExpressions": []}},
            {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": []}]}},
            {"ipBlock": {"cidr": "2001:DB8::/32", "except": []}},
        ]
    }
    with recording(shared_control_plane.audit_log) as recorded:
        made = api_server.create("modeldeployments", wanted)
        wait_until("the status is written", lambda: observed(api_server, "m", namespace))
        operator.wait_idle()
    recorded = [event for event in recorded if event.get("objectRef", {}).get("namespace") == namespace]
    assert Counter(line.split()[1] for line in writes(recorded, user_agent=AGENT))["networkpolicies"] == 1
    with recording(shared_control_plane.audit_log) as recorded:
        api_server.patch("modeldeployments", namespace, "m", {"spec": made["spec"]})
        with OperatorProcess(shared_control_plane.kubeconfig, {"MODELPIER_LEASE_NAME": "another"}) as second:
            second.wait_ready().wait_leading().wait_idle()
            operator.wait_idle()
    assert writes(recorded, user_agent=AGENT, ignore_leases=True) == []


def _callers(server: ApiServer, namespace: str) -> list[Any]:
    """Who reaches the ordinary ports, by rule; None: everybody."""
    [policy] = _owned(server, "networkpolicies", namespace)
    rules = policy["spec"]["ingress"]
    return [rule.get("from") for rule in rules if all(port.get("port") != ADMIN_PORT for port in rule["ports"])]


def _owned(server: ApiServer, plural: str, namespace: str) -> list[dict[str, Any]]:
    found = server.list(plural, namespace)
    return [o for o in found if (o["metadata"].get("labels") or {}).get(names.LABEL_DEPLOYMENT) == "m"]


def _reasons(server: ApiServer, namespace: str, name: str) -> set[str]:
    live = server.get("modeldeployments", namespace, name) or {}
    return {condition["reason"] for condition in live.get("status", {}).get("conditions", ())}


def _edit(server: ApiServer, namespace: str, name: str, **spec: object) -> None:
    server.patch("modeldeployments", namespace, name, {"spec": spec})
