from typing import Any

from bench.operator.requests import AGENT, Traffic


def event(verb: str, resource: str, agent: str = "operator", **more: Any) -> dict[str, Any]:
    return {
        "stage": "ResponseComplete",
        "verb": verb,
        "user": {"username": more.pop("user", "admin")},
        "userAgent": agent,
        "objectRef": {"resource": resource, **more.pop("ref", {})},
        "responseStatus": {"code": more.pop("code", 200)},
        **more,
    }


def test_reads_and_writes_are_told_apart() -> None:
    traffic = Traffic.of(
        [
            event("create", "services", code=201),
            event("patch", "modeldeployments", ref={"subresource": "status"}),
            event("get", "modeldeployments"),
            event("list", "pods"),
            event("watch", "pods"),
        ]
    )
    assert (traffic.writes(), traffic.reads(), traffic.lists()) == (2, 2, 1)
    assert traffic.table() == {
        "create services": 1,
        "get modeldeployments": 1,
        "list pods": 1,
        "patch modeldeployments/status": 1,
    }


def test_others_and_the_election_do_not_count() -> None:
    traffic = Traffic.of(
        [
            event("create", "modeldeployments", AGENT),
            event("create", "namespaces", "kubectl/v1.36"),
            event("create", "ipaddresses", user="system:apiserver"),
            event("update", "leases"),
            event("create", "services", stage="ResponseStarted"),
            {**event("get", ""), "objectRef": {}},
        ]
    )
    assert traffic.counts == {}


def test_refused_requests_are_shown() -> None:
    traffic = Traffic.of([event("create", "services", code=409), event("create", "services", code=201)])
    assert traffic.refused() == {"create services 409": 1}
    assert traffic.writes() == 2
