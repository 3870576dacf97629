"""Who reaches which port: as it is rendered, for nothing here enforces a policy."""

from __future__ import annotations

from typing import Any

import pytest

from modelpier_operator.decide.address import all_pods
from modelpier_operator.decide.facts import Observed
from modelpier_operator.desired import network
from modelpier_operator.judge import judge
from modelpier_server import contract
from support.builders import KEYS, T0, conditions, md, of_kind, settings
from support.pages import manifests, parsed
from support.simulation import Operator

CLIENTS = {"podSelector": {"matchLabels": {"app": "shop"}}}
MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
OFFICE = {"ipBlock": {"cidr": "198.18.0.0/16", "except": ["198.18.7.0/24"]}}
OPERATOR = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "modelpier-system"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "modelpier-operator"}},
}
EVERYBODY: dict[str, Any] = {}
BAD = {"from": [{"podSelector": {"matchLabels": {"no label": "x"}}}]}
"""No schema and no CEL says this of the keys of a map: the API server takes it."""


def policy(*peers: Any) -> Any:
    subject = md(access={"from": list(peers)}) if peers else md()
    (made,) = of_kind(judge(Observed(subject), settings(), KEYS, T0).children, "NetworkPolicy")
    return made


def admitted(policy: Any, protocol: str, port: int) -> list[Any]:
    """The peers that a rule lets through to a port."""
    return [
        peer
        for rule in policy["spec"]["ingress"]
        if any(p["protocol"] == protocol and _spans(p, port) for p in rule["ports"])
        for peer in rule.get("from", [EVERYBODY])
    ]


def _spans(ports: Any, port: int) -> bool:
    return "port" not in ports or ports["port"] <= port <= ports.get("endPort", ports["port"])


ORDINARY = [
    *(("TCP", port) for port in (1, 80, 8080, 8081, 8083, 9090, 65535)),
    *((protocol, port) for protocol in ("UDP", "SCTP") for port in (1, 53, 8082, 65535)),
]


@pytest.mark.parametrize(("protocol", "port"), ORDINARY)
def test_everybody_reaches_all_but_the_admin_port_rendered_only(protocol: str, port: int) -> None:
    assert admitted(policy(), protocol, port) == [EVERYBODY]


@pytest.mark.parametrize(("protocol", "port"), ORDINARY)
def test_whoever_is_named_and_nobody_else_does_rendered_only(protocol: str, port: int) -> None:
    peers = [CLIENTS, MONITORING, OFFICE]
    assert admitted(policy(*peers), protocol, port) == peers


@pytest.mark.parametrize("peers", [(), (CLIENTS,), (CLIENTS, MONITORING, OFFICE)])
def test_the_operator_alone_reaches_the_admin_port_rendered_only(peers: Any) -> None:
    assert admitted(policy(*peers), "TCP", contract.ADMIN_PORT) == [OPERATOR]


def test_nothing_is_said_of_where_pods_connect_to_rendered_only() -> None:
    assert policy(CLIENTS)["spec"]["policyTypes"] == ["Ingress"]
    assert "egress" not in policy(CLIENTS)["spec"]


@pytest.mark.parametrize(
    "peer",
    [
        {"podSelector": {}},
        {"namespaceSelector": {}},
        {"namespaceSelector": {}, "podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}},
        {"podSelector": {"matchExpressions": [{"key": "a.b/tier", "operator": "NotIn", "values": ["batch", ""]}]}},
        {"ipBlock": {"cidr": "2001:DB8::/32"}},
    ],
)
def test_a_peer_is_handed_on_as_it_was_written(peer: Any) -> None:
    """Empty selectors select all; the API server keeps the spelling of addresses."""
    assert admitted(policy(peer), "TCP", 8080) == [peer]


def test_empty_lists_are_left_out_as_the_api_server_does() -> None:
    """It would look changed for ever."""
    peer: Any = {"podSelector": {"matchLabels": {}, "matchExpressions": []}}
    assert admitted(policy(peer), "TCP", 8080) == [{"podSelector": {}}]
    assert admitted(policy({"ipBlock": {"cidr": "::/0", "except": []}}), "TCP", 80) == [{"ipBlock": {"cidr": "::/0"}}]


def test_the_how_to_that_secures_the_server_makes_such_policies_rendered_only() -> None:
    shown = [d for b in manifests() if b.page.name == "secure-the-server.md" for d in parsed(b)]
    [narrowed] = [d["spec"]["access"]["from"] for d in shown if "access" in d["spec"]]
    assert admitted(policy(*narrowed), "TCP", contract.HTTP_PORT) == narrowed
    [own] = [d for d in shown if d["kind"] == "NetworkPolicy"]
    assert own["spec"]["podSelector"]["matchLabels"] == all_pods({"metadata": {"name": "digits"}})
    assert admitted(own, "TCP", contract.PROBE_PORT) == [MONITORING]
    assert admitted(own, "TCP", contract.HTTP_PORT) == []


# ------------------------------------------------------------------------------------------------ a change of it
def running(**spec: Any) -> Operator:
    subject = Operator(md(replicas=2, **spec))
    subject.settle()
    assert conditions(subject.md["status"])["Ready"] == "True/Serving"
    return subject


def live(subject: Operator) -> Any:
    (made,) = subject.world.store.list("NetworkPolicy")
    return made


def others(subject: Operator) -> Any:
    kinds = ("ControllerRevision", "ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "ServiceAccount")
    return {kind: subject.world.store.list(kind) for kind in kinds}, [
        p["metadata"]["uid"] for p in subject.world.pods()
    ]


@pytest.mark.parametrize("peers", [[CLIENTS], []])
def test_it_makes_no_revision_and_restarts_no_pod(peers: list[Any]) -> None:
    subject = running(access={"from": [MONITORING]})
    before, revisions = others(subject), subject.md["status"]["revisions"]
    subject.edit(access={"from": peers})
    subject.settle()
    assert others(subject) == before
    assert admitted(live(subject), "TCP", 8080) == (peers or [EVERYBODY])
    status = subject.md["status"]
    assert (status["revisions"], status["observedGeneration"]) == (revisions, 2)


@pytest.mark.parametrize("peers", [[], [CLIENTS]])
def test_one_that_cannot_be_read_lets_in_whom_it_let_in_before(peers: list[Any]) -> None:
    subject = running(access={"from": peers})
    before = others(subject), live(subject)
    subject.edit(access=BAD)
    subject.settle()
    assert (others(subject), live(subject)) == before
    told = next(c for c in subject.md["status"]["conditions"] if c["type"] == "Ready")
    assert told["reason"] == "SpecInvalid"
    assert told["message"].startswith(
        "spec.access.from.0.podSelector.matchLabels: no label is no key of a label; write"
    )


def test_one_that_cannot_be_read_opens_no_door_where_the_policy_is_gone() -> None:
    subject = running(access={"from": [CLIENTS]})
    subject.edit(access=BAD)
    subject.world.store.remove(live(subject))
    subject.settle()
    assert admitted(live(subject), "TCP", 8080) == []
    assert admitted(live(subject), "TCP", contract.ADMIN_PORT) == [OPERATOR]
    subject.edit(access={"from": [CLIENTS]})
    subject.settle()
    assert admitted(live(subject), "TCP", 8080) == [CLIENTS]


def test_it_holds_though_the_rest_of_the_spec_cannot_be_followed() -> None:
    subject = running()
    subject.edit(access={"from": [CLIENTS]}, resources={"nodeSelector": {"no label": "x"}})
    subject.settle()
    assert conditions(subject.md["status"])["Ready"] == "False/SpecInvalid"
    assert admitted(live(subject), "TCP", 8080) == [CLIENTS]


def test_ports_of_another_version_are_brought_up_to_date() -> None:
    old = policy(CLIENTS)
    old["spec"]["ingress"][0]["ports"] = [{"protocol": "TCP", "port": 1, "endPort": 8081}]
    assert network.admitted(old) == tuple(policy(CLIENTS)["spec"]["ingress"][:1])
