"""What to send and what came of it: the messages between the benchmark and its load generator."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.server.histogram import Histogram

GRPC = "grpc"
OVERLOADED = 429
ANSWERED = 200


@dataclass(frozen=True)
class Request:
    """`path`: of HTTP, or of a gRPC method. `wire`: for people, and GRPC.

    `bodies`: of one length; connection n sends number n modulo their count, so that an answer that went to somebody
    else is seen.
    """

    path: str
    bodies: tuple[bytes, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    wire: str = "JSON"
    method: str = "POST"


@dataclass(frozen=True)
class Load:
    """`core`: where the generator runs; None: wherever."""

    port: int
    request: Request
    concurrency: int
    seconds: float
    warm_up: float = 1.0
    core: int | None = None
    host: str = "127.0.0.1"

    def encode(self) -> str:
        data = asdict(self)
        data["request"]["bodies"] = [base64.b64encode(body).decode() for body in self.request.bodies]
        return json.dumps(data)

    @classmethod
    def decode(cls, text: str) -> Load:
        data = json.loads(text)
        request = data.pop("request")
        request["bodies"] = tuple(map(base64.b64decode, request["bodies"]))
        return cls(request=Request(**request), **data)


@dataclass(frozen=True)
class Sample:
    """The body of an answer to body number `variant`."""

    variant: int
    body: bytes


@dataclass
class Outcome:
    """`latencies` by status; statuses of gRPC are its own codes, but for 200 in place of OK."""

    seconds: float
    latencies: dict[int, Histogram]
    resets: int = 0
    """Connections that ended while an answer was owed."""
    hasty: int = 0
    """Answers 429 that do not say when to come again."""
    cpu: float = 0.0
    """Seconds that the generator itself took."""
    samples: list[Sample] = field(default_factory=list)
    """Some good answers, evenly spread in time."""

    @property
    def busy(self) -> float:
        """Share of a core that the generator took: near 1, it is itself what was measured."""
        return self.cpu / self.seconds

    @property
    def answered(self) -> Histogram:
        return self.latencies.get(ANSWERED, Histogram())

    @property
    def rate(self) -> float:
        """Requests per second that were answered well."""
        return self.answered.count / self.seconds

    @property
    def other(self) -> dict[int, int]:
        """How many answers had another status."""
        return {status: found.count for status, found in self.latencies.items() if status != ANSWERED}

    def encode(self) -> str:
        latencies = {k: v.encode() for k, v in self.latencies.items()}
        samples = [(sample.variant, base64.b64encode(sample.body).decode()) for sample in self.samples]
        return json.dumps({**self.__dict__, "latencies": latencies, "samples": samples})

    @classmethod
    def decode(cls, text: str) -> Outcome:
        data: dict[str, Any] = json.loads(text)
        data["latencies"] = {int(k): Histogram.decode(v) for k, v in data["latencies"].items()}
        data["samples"] = [Sample(variant, base64.b64decode(body)) for variant, body in data["samples"]]
        return cls(**data)
