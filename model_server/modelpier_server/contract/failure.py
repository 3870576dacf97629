"""The termination message of a server that gave up, which the operator reads from the status of its pod."""

from __future__ import annotations

from dataclasses import dataclass

from modelpier_server.contract import decoding
from modelpier_server.contract.names import TERMINATION_LOG_LIMIT
from modelpier_server.contract.states import FailureReason

_LONGEST_REVISION = 253
"""Of a Kubernetes name: even escaped it leaves room for a message."""
_LONGEST_ESCAPE = 12
"""Bytes that JSON can make of one character."""


@dataclass(frozen=True)
class Failure:
    """A termination message."""

    reason: FailureReason
    message: str
    revision: str = ""

    def encode(self) -> bytes:
        """At most TERMINATION_LOG_LIMIT bytes: a cut message would not parse."""
        message, revision = self.message[:TERMINATION_LOG_LIMIT], self.revision[:_LONGEST_REVISION]
        while len(raw := self._encode(message, revision)) > TERMINATION_LOG_LIMIT:
            message = message[: -max(1, (len(raw) - TERMINATION_LOG_LIMIT) // _LONGEST_ESCAPE)]
        return raw

    def _encode(self, message: str, revision: str) -> bytes:
        return decoding.dump({"reason": self.reason, "message": message, "revision": revision})

    @classmethod
    def decode(cls, raw: bytes | str) -> Failure:
        """Raises ContractError: not every termination message is ours."""
        data = decoding.mapping(decoding.parse(raw, "failure"), "failure")
        reason = decoding.member(FailureReason, data, "reason", "failure")
        return cls(reason, str(data.get("message", "")), str(data.get("revision", "")))
