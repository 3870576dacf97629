"""Counts of requests, from the API server's own metrics. Pure; used by rounds.py.

apiserver_request_total is described in https://kubernetes.io/docs/reference/instrumentation/metrics/.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

WRITES = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"})
# What the API server does on its own (its Lease, priority levels, the address of each new Service), and election.
NOT_THE_CONTEST = frozenset({
    *("leases", "flowschemas", "prioritylevelconfigurations", "apiservices", "customresourcedefinitions"),
    *("ipaddresses", "servicecidrs", "endpointslices", "clusterroles", "clusterrolebindings", "openapi"),
})  # fmt: skip
_LINE = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, order=True)
class Request:
    """`resource` with its subresource, such as modeldeployments/status; `code` is the HTTP status."""

    verb: str
    resource: str
    code: int


def parse(metrics: str) -> Counter[Request]:
    """All requests so far, by verb, resource and status."""
    counts: Counter[Request] = Counter()
    for labels, value in _LINE.findall(metrics):
        found = dict(_LABEL.findall(labels))
        resource = "/".join(filter(None, (found.get("resource"), found.get("subresource"))))
        if resource and resource.split("/")[0] not in NOT_THE_CONTEST:
            counts[Request(found["verb"], resource, int(found["code"]))] += int(float(value))
    return counts


@dataclass(frozen=True)
class Traffic:
    """What happened between two readings."""

    counts: Mapping[Request, int]

    @classmethod
    def between(cls, begin: Counter[Request], end: Counter[Request], known: Mapping[Request, int]) -> Traffic:
        """`known`: requests of the measuring itself and of the loader, which do not count."""
        delta = {request: end[request] - begin[request] - known.get(request, 0) for request in end}
        return cls({request: count for request, count in sorted(delta.items()) if count > 0})

    def writes(self) -> int:
        return sum(count for request, count in self.counts.items() if request.verb in WRITES)

    def reads(self) -> int:
        """GET and LIST; a watch is counted when it ends and says nothing about work."""
        return sum(count for request, count in self.counts.items() if request.verb in {"GET", "LIST"})

    def lists(self) -> int:
        return sum(count for request, count in self.counts.items() if request.verb == "LIST")

    def refused(self) -> dict[str, int]:
        """Answers from 400 on, by verb, resource and status."""
        return {
            f"{request.verb} {request.resource} {request.code}": count
            for request, count in self.counts.items()
            if request.code >= 400
        }

    def table(self) -> dict[str, int]:
        """Counts by verb and resource."""
        table: Counter[str] = Counter()
        for request, count in self.counts.items():
            table[f"{request.verb} {request.resource}"] += count
        return dict(table)
