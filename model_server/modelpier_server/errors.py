"""Every exception that the server raises on purpose; `status` turns them into HTTP answers at the transport's edge.

    ModelpierError
    ├── ServerError                 a request that gets no answer; `status` of HTTP, str() the text of `{"error": ...}`
    │   ├── InvalidRequest    400   the text names the field and the remedy
    │   ├── Unauthorized      401   no API key, or an unknown one
    │   ├── Forbidden         403   what this server does not let a client decide
    │   │   └── OutOfScope    403   the API key is not good for this
    │   ├── NotFound          404   model, version or path
    │   ├── MethodNotAllowed  405   the path exists, for `allowed` methods
    │   ├── PayloadTooLarge   413   also counts inflated bytes
    │   ├── UnsupportedMedia  415   a content encoding that is not read here
    │   ├── QueueFull         429   `retry_after` seconds
    │   ├── Cancelled         499   the client went away, or all who waited for a run: nobody reads the answer
    │   ├── InferenceFailed   500   the model failed on valid input
    │   │   └── OutOfMemory   500   it asked for more memory than there is
    │   ├── Unavailable       503   not loaded yet, draining; `retry_after` seconds
    │   └── DeadlineExceeded  504   `request_timeout` passed before the answer was there
    └── ModelError                  keeps a model from being served; `reason` is of the contract's closed set

Raised by all layers; caught by transport (ServerError) and lifecycle (ModelError).
"""

from __future__ import annotations

from typing import ClassVar

from modelpier_server.contract import FailureReason

_CHALLENGE = 'Bearer realm="modelpier"'


class ModelpierError(Exception):
    """Root of the tree: `except ModelpierError` never hides a programming error."""


class ServerError(ModelpierError):
    """A request that gets no answer."""

    status: ClassVar[int] = 500
    retry_after: float | None = None
    """Seconds until another try makes sense; None: the same request will fail again."""
    challenge: str | None = None
    """What would be let in: the header WWW-Authenticate (RFC 6750). None: it is not that."""


class InvalidRequest(ServerError):
    status = 400


class Unauthorized(ServerError):
    status = 401

    def __init__(self, message: str, *, known: bool = True) -> None:
        """`known` False: there is a key, and it is none of ours."""
        super().__init__(message)
        self.challenge = _CHALLENGE if known else f'{_CHALLENGE}, error="invalid_token"'


class Forbidden(ServerError):
    status = 403


class OutOfScope(Forbidden):
    def __init__(self, message: str, scope: str = "") -> None:
        super().__init__(message)
        self.challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'


class NotFound(ServerError):
    status = 404


class MethodNotAllowed(ServerError):
    status = 405

    def __init__(self, allowed: str) -> None:
        super().__init__(f"method not allowed here; allowed: {allowed}")
        self.allowed = allowed


class PayloadTooLarge(ServerError):
    status = 413


class UnsupportedMedia(ServerError):
    status = 415


class QueueFull(ServerError):
    status = 429

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Cancelled(ServerError):
    status = 499


class InferenceFailed(ServerError):
    status = 500


class OutOfMemory(InferenceFailed):
    pass


class Unavailable(ServerError):
    status = 503

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceeded(ServerError):
    status = 504


class ModelError(ModelpierError):
    """Keeps a model from being served: raised by `repository` and `runtime.load`, reported by `lifecycle`."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
