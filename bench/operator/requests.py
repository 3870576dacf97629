"""Who asked what of the API server, from its audit log. Pure; used by arena.py.

The log tells clients apart, which the API server's metrics do not: the loader, this measuring process and what the API
server does for itself (its Lease, the address of each new Service, repairs) do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
READS = frozenset({"get", "list"})
AGENT = "modelpier-bench"
"""The User-Agent of everything in this package."""
_OTHERS = (AGENT, "kubectl")
_API_SERVER = "system:apiserver"
_ELECTION = "leases"


@dataclass(frozen=True, order=True)
class Request:
    """`resource` with its subresource, such as modeldeployments/status; `code` is the HTTP status."""

    verb: str
    resource: str
    code: int


@dataclass(frozen=True)
class Traffic:
    """The contestant's requests in an interval, its election left out."""

    counts: Mapping[Request, int]

    @classmethod
    def of(cls, events: Iterable[Mapping[str, Any]]) -> Traffic:
        """From audit events (audit.k8s.io/v1). Watches are left out: they say nothing about work."""
        counts = Counter(_request(event) for event in events if _counts(event))
        return cls(dict(sorted(counts.items())))

    def writes(self) -> int:
        return sum(count for request, count in self.counts.items() if request.verb in WRITES)

    def reads(self) -> int:
        return sum(count for request, count in self.counts.items() if request.verb in READS)

    def lists(self) -> int:
        return sum(count for request, count in self.counts.items() if request.verb == "list")

    def refused(self) -> dict[str, int]:
        """Answers from 400 on, by verb, resource and status."""
        return {f"{r.verb} {r.resource} {r.code}": count for r, count in self.counts.items() if r.code >= 400}

    def table(self) -> dict[str, int]:
        """Counts by verb and resource."""
        table: Counter[str] = Counter()
        for request, count in self.counts.items():
            table[f"{request.verb} {request.resource}"] += count
        return dict(table)


def _counts(event: Mapping[str, Any]) -> bool:
    return (
        event["stage"] == "ResponseComplete"
        and event["verb"] in WRITES | READS
        and event.get("objectRef", {}).get("resource") not in {None, _ELECTION}
        and event["user"]["username"] != _API_SERVER
        and not event.get("userAgent", "").startswith(_OTHERS)
    )


def _request(event: Mapping[str, Any]) -> Request:
    reference = event["objectRef"]
    resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
    return Request(event["verb"], resource, event.get("responseStatus", {}).get("code", 0))
