"""What one client, and all of them together, may take of a port."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bytes and seconds."""

    max_body_bytes: int = 64 * 1024 * 1024
    """For routes that set none of their own; inflated size where the body is compressed."""
    max_header_bytes: int = 32 * 1024
    """Request line and headers."""
    max_headers: int = 100
    max_connections: int = 4096
    max_pipelined: int = 16
    """Unanswered requests of one connection; no more is read of it before one is answered."""
    max_buffered_bytes: int = 1024 * 1024 * 1024
    """Bodies of all connections together, inflated where they are compressed; a single one is never larger either."""
    header_timeout: float = 15.0
    """From the first byte of a request to the end of its headers."""
    body_grace: float = 20.0
    body_rate: int = 16 * 1024
    """A body must arrive within body_grace plus its size at this many bytes per second."""
    idle_timeout: float = 75.0
    """Between requests of a connection: longer than the 60 s of common proxies, which must be the ones to close."""
    write_timeout: float = 30.0
    """A client that takes less than `body_rate` of its answer within this time is cut off."""
    linger_timeout: float = 5.0
    """After an answer that was given before the whole request was read: closing at once would destroy the answer on
    its way.
    """

    @property
    def max_owed_bytes(self) -> int:
        """Answers of all connections together that their clients have not taken yet: beyond it those are cut off that
        have most to take. A single answer is never larger either.
        """
        return self.max_buffered_bytes // 2
