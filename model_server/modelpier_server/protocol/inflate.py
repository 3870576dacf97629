"""Compressed request bodies: gzip and deflate, with the limit on the inflated size.

Blocking (zlib releases the GIL): the transport calls it in a thread. Sources: RFC 9110 section 8.4.1, RFC 1950 to 1952.
"""

from __future__ import annotations

import zlib

from modelpier_server.errors import InvalidRequest, PayloadTooLarge, UnsupportedMedia
from modelpier_server.protocol.http import Body

_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": zlib.MAX_WBITS}
_RAW_DEFLATE = -zlib.MAX_WBITS


def inflate(body: Body, encoding: str, limit: int) -> bytes:
    """The plain body. Never holds more than `limit` bytes of it.

    Raises UnsupportedMedia for another encoding, PayloadTooLarge beyond `limit`, InvalidRequest for a broken stream.
    """
    window = _WINDOW.get(encoding.strip().lower())
    if window is None:
        raise UnsupportedMedia(f"Content-Encoding: '{encoding}' is not read here; gzip and deflate are")
    try:
        return _inflate(body, window, limit)
    except zlib.error as error:
        if window != zlib.MAX_WBITS:
            raise InvalidRequest(f"body: not {encoding}: {error}") from error
    try:  # Some clients send `deflate` without zlib's frame, against RFC 9110; everybody reads it.
        return _inflate(body, _RAW_DEFLATE, limit)
    except zlib.error as error:
        raise InvalidRequest(f"body: not {encoding}: {error}") from error


def _inflate(body: Body, window: int, limit: int) -> bytes:
    stream = zlib.decompressobj(window)
    plain = stream.decompress(body, limit + 1)
    if len(plain) > limit:
        raise PayloadTooLarge(f"body: more than {limit} bytes once inflated")
    if not stream.eof:
        raise InvalidRequest("body: the compressed stream is cut short")
    if stream.unused_data:
        raise InvalidRequest("body: bytes follow the compressed stream")
    return plain
