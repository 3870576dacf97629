"""What one client, and all of them together, may take of the gRPC port."""

from __future__ import annotations

from dataclasses import dataclass

from modelpier_server.contract import GRPC_SETTLE_SECONDS

INT32_MAX = 2**31 - 1
"""No gRPC message is longer."""


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """Bytes and seconds."""

    max_buffered_bytes: int = 1024 * 1024 * 1024
    """Messages of all calls together, inflated where they are compressed; a single one is never larger either."""
    max_calls: int = 4096
    """Calls and streams at once; one more is RESOURCE_EXHAUSTED."""
    max_in_flight: int = 32
    """Unanswered requests of one stream; no more is read of it before one is answered."""
    max_connections: int = 4096
    max_streams: int = 1024
    """Calls at once on one connection; clients keep others back by themselves."""
    max_metadata_bytes: int = 32 * 1024
    message_timeout: float = 120.0
    """From a call's headers to the end of its message."""
    write_timeout: float = 30.0
    """A stream whose client does not read its answers is ended."""
    handshake_timeout: float = 15.0
    settling: float = GRPC_SETTLE_SECONDS
    """Within that time every connection is asked to go (GOAWAY) and loses no call by it. Kubernetes balances
    connections, not calls: pods that came later would get nothing of the clients that came before. And no
    connection is older when a server goes down, which is the only way to be left by clients without losing calls.
    """
    keepalive: float = 60.0
    """Between pings that find out whether a silent peer is still there."""
    ping_interval: float = 10.0
    """Clients that ping more often are sent away."""

    @property
    def connection_age(self) -> float:
        """Up to a tenth is added or taken away by gRPC."""
        return (self.settling - 0.5) / 1.1

    @property
    def max_owed_bytes(self) -> int:
        """Answers of all calls together that their clients have not taken yet."""
        return self.max_buffered_bytes // 2

    @property
    def max_message_bytes(self) -> int:
        return min(self.max_buffered_bytes, INT32_MAX)

    def options(self) -> list[tuple[str, int]]:
        """As gRPC calls them. A model's own limit is looked at once the message has named it."""
        return [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", self.max_streams),
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.max_metadata_size", self.max_metadata_bytes),
            ("grpc.absolute_max_metadata_size", self.max_metadata_bytes),
            ("grpc.server_handshake_timeout_ms", _milliseconds(self.handshake_timeout)),
            ("grpc.max_connection_age_ms", _milliseconds(self.connection_age)),
            ("grpc.keepalive_time_ms", _milliseconds(self.keepalive)),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", _milliseconds(self.ping_interval)),
            ("grpc.so_reuseport", 0),  # two servers on one port would each get half of the clients
        ]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
