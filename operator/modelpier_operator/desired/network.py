"""The NetworkPolicy of the pods: the admin port is the operator's alone, all others are open as `spec.access` says.

It says nothing of what the pods may connect to. Policies add up: another one of the user's can open more, and none can
take away what this one opens. That is why `spec.access.from` exists. Called by `children`, and `admitted` by `judge`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelpier_operator import names
from modelpier_operator.api.access import Access
from modelpier_operator.decide.address import all_pods
from modelpier_operator.decide.facts import Manifest
from modelpier_operator.desired.metadata import metadata
from modelpier_operator.settings import Settings
from modelpier_server import contract

OPERATOR = "modelpier-operator"
"""app.kubernetes.io/name of the operator's pods in the chart."""
Rule = Mapping[str, Any]
_ADMIN = [{"protocol": "TCP", "port": contract.ADMIN_PORT}]


def name(md: Manifest) -> str:
    return names.capped(md["metadata"]["name"], "admin", 253)


def network_policy(md: Manifest, callers: tuple[Rule, ...], settings: Settings) -> dict[str, Any]:
    """`callers` are the rules of `opened` or `admitted`."""
    operator = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.operator_namespace}},
        "podSelector": {"matchLabels": {names.LABEL_NAME: OPERATOR}},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(md, name(md)),
        "spec": {
            "podSelector": {"matchLabels": all_pods(md)},
            "policyTypes": ["Ingress"],
            "ingress": [
                *callers,
                {"from": [operator], "ports": _ADMIN},
            ],
        },
    }


def opened(access: Access) -> tuple[Rule, ...]:
    """All ports but the admin port, to the peers that are named, or to everybody.

    Metrics are no exception: they are answered on the port of inference, which a policy cannot tell apart, and with TLS
    on another one besides. Whoever scrapes them is one of the peers. The kubelet's probes come from the pod's own node,
    which no policy shuts out.
    """
    return (_all_but_admin(access.model_dump(mode="json", by_alias=True, exclude_defaults=True).get("from", ())),)


def admitted(live: Manifest | None) -> tuple[Rule, ...]:
    """Whom a policy of ours lets in now: for a spec whose `access` cannot be read. Without a policy it is nobody."""
    rules = live["spec"].get("ingress") or () if live else ()
    return tuple(_all_but_admin(rule.get("from") or ()) for rule in rules if rule.get("ports") != _ADMIN)


def _all_but_admin(peers: Sequence[Manifest]) -> Rule:
    """Whatever else listens in a pod (a side-car's metrics or its DNS, say) is as open as inference is."""
    ports = [
        {"protocol": "TCP", "port": 1, "endPort": contract.ADMIN_PORT - 1},
        {"protocol": "TCP", "port": contract.ADMIN_PORT + 1, "endPort": 65535},
        {"protocol": "UDP"},
        {"protocol": "SCTP"},
    ]
    return {"from": list(peers), "ports": ports} if peers else {"ports": ports}
