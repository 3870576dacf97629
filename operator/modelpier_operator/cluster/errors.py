"""What the API server may answer instead of what was asked for, as one tree that carries the retry decision.

    ApiError
    ├── UnavailableError          no answer, 5xx, 408: again later
    ├── TooManyRequestsError      429: again after `retry_after`
    ├── ConflictError             409: somebody else was faster; look again, then decide anew
    │   └── AlreadyExistsError
    ├── GoneError                 410: list again
    ├── NotFoundError             404
    └── RefusedError              only a change of something else helps
        ├── ForbiddenError        403: rights, quota, admission
        ├── UnauthorizedError     401: credentials
        └── InvalidError          400, 422: the object itself

Raised by `client`; `reconcile` asks `permanent` and `retry_after` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MESSAGE_LIMIT = 1024
"""Characters of a message that are kept: a validation error lists every field."""


class ApiError(Exception):
    """`status`: of HTTP, 0 without an answer. `reason`: the Status object's, such as AlreadyExists."""

    permanent = False
    """Trying again the same thing is in vain until something else changes."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        retry_after: float | None = None,
        causes: tuple[str, ...] = (),
        fields: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.reason, self.retry_after = message, status, reason, retry_after
        self.causes, self.fields = causes, fields
        """Reasons and fields of `details.causes`, such as NamespaceTerminating or metadata.uid."""


class UnavailableError(ApiError): ...


class TooManyRequestsError(ApiError): ...


class ConflictError(ApiError): ...


class AlreadyExistsError(ConflictError): ...


class GoneError(ApiError): ...


class NotFoundError(ApiError): ...


class RefusedError(ApiError):
    permanent = True


class ForbiddenError(RefusedError): ...


class UnauthorizedError(RefusedError):
    # A token may be rotated at any moment, and the file is read again: worth another try.
    permanent = False


class InvalidError(RefusedError): ...


class NotLeaderError(Exception):
    """A write was about to start without the time left on the lease to finish it."""


_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: InvalidError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    408: UnavailableError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
    429: TooManyRequestsError,
}


def from_status(status: int, body: Any, retry_after: str | None = None) -> ApiError:
    """The error for an HTTP status and its decoded body: a Status object, or whatever a proxy put in its place."""
    data = body if isinstance(body, dict) else {}
    reason = str(data.get("reason") or "")
    details = data.get("details") or {}
    kind = AlreadyExistsError if reason == "AlreadyExists" else _BY_STATUS.get(status, UnavailableError)
    if kind is UnavailableError and 400 <= status < 500 and status != 408:
        kind = RefusedError
    seconds = retry_after if retry_after and retry_after.isdecimal() else details.get("retryAfterSeconds")
    return kind(
        str(data.get("message") or body or f"HTTP {status}")[:MESSAGE_LIMIT],
        status=status,
        reason=reason,
        retry_after=float(seconds) if seconds else None,
        causes=tuple(str(cause.get("reason")) for cause in details.get("causes") or ()),
        fields=tuple(str(cause.get("field")) for cause in details.get("causes") or ()),
    )
