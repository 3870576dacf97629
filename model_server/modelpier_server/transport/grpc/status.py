"""The server's errors as gRPC says them; the one place where the two meet."""

from __future__ import annotations

from typing import NoReturn

from grpc import StatusCode
from grpc.aio import ServicerContext

from modelpier_server.errors import ServerError
from modelpier_server.protocol.grpc.generated.status_pb2 import Duration, RetryInfo, Status

CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    405: StatusCode.UNIMPLEMENTED,
    413: StatusCode.RESOURCE_EXHAUSTED,  # as gRPC itself answers what is larger than it takes
    415: StatusCode.UNIMPLEMENTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    499: StatusCode.CANCELLED,
    500: StatusCode.INTERNAL,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
"""Of `ServerError.status`."""
LONGEST = 1024
"""Characters of a text: it travels in a header, where clients take 8 KiB altogether."""

Metadata = tuple[tuple[str, str | bytes], ...]


def code_of(error: ServerError) -> StatusCode:
    return CODES.get(error.status, StatusCode.UNKNOWN)


def text_of(error: ServerError) -> str:
    text = str(error)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


async def abort(context: ServicerContext[bytes, bytes], error: ServerError) -> NoReturn:
    await context.abort(code_of(error), text_of(error), _trailers(error))
    raise AssertionError("abort always raises")


def _trailers(error: ServerError) -> Metadata:
    """When to come again: `grpc-retry-pushback-ms` is heard by gRPC's own retries, RetryInfo by people's code."""
    if error.retry_after is None:
        return ()
    milliseconds = round(error.retry_after * 1000)
    delay = Duration(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)
    status = Status(code=code_of(error).value[0], message=text_of(error))
    status.details.add(
        type_url="type.googleapis.com/google.rpc.RetryInfo", value=RetryInfo(retry_delay=delay).SerializeToString()
    )
    return (
        ("grpc-retry-pushback-ms", str(milliseconds)),
        ("grpc-status-details-bin", status.SerializeToString()),
    )
