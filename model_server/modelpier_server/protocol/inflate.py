"""Compressed request bodies: gzip and deflate, with the limit on the inflated size.

The transport calls `step` in a thread (zlib releases the GIL) and counts what has come out before it goes on.
Sources: RFC 9110 section 8.4.1, RFC 1950 to 1952.
"""

from __future__ import annotations

import zlib

from modelpier_server.errors import InvalidRequest, PayloadTooLarge, UnsupportedMedia
from modelpier_server.protocol.http import Body

_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": zlib.MAX_WBITS}
_RAW_DEFLATE = -zlib.MAX_WBITS
STEP = 1 << 20
"""Bytes that one step gives at most."""
_INPUT = 1 << 16
"""Bytes given to zlib at once: it copies what it has not used up."""


class Inflation:
    """One body on its way; `plain` grows with every step, and never beyond `limit` bytes by more than one.

    Raises UnsupportedMedia for another encoding.
    """

    def __init__(self, body: Body, encoding: str, limit: int) -> None:
        window = _WINDOW.get(encoding.strip().lower())
        if window is None:
            raise UnsupportedMedia(f"Content-Encoding: '{encoding}' is not read here; gzip and deflate are")
        self.plain = bytearray()
        self._source = memoryview(body)
        self._encoding = encoding
        self._limit = limit
        self._begin(window)

    def step(self) -> bool:
        """Inflates STEP bytes more; whether all is done. Raises PayloadTooLarge, and InvalidRequest for a broken
        stream.
        """
        end = min(len(self.plain) + STEP, self._limit + 1)
        try:
            self._fill(end)
        except zlib.error as error:
            if self._window != zlib.MAX_WBITS:
                raise InvalidRequest(f"body: not {self._encoding}: {error}") from error
            # Some clients send `deflate` without zlib's frame, against RFC 9110; everybody reads it.
            self._begin(_RAW_DEFLATE)
            return False
        if len(self.plain) > self._limit:
            raise PayloadTooLarge(f"body: more than {self._limit} bytes once inflated")
        return self._ended(end)

    def _begin(self, window: int) -> None:
        self.plain.clear()
        self._window = window
        self._stream = zlib.decompressobj(window)
        self._at = 0

    def _fill(self, end: int) -> None:
        stream = self._stream
        while len(self.plain) < end and not stream.eof:
            piece: Body = stream.unconsumed_tail
            if not piece:
                piece = self._source[self._at : self._at + _INPUT]
                self._at += len(piece)
            got = stream.decompress(piece, end - len(self.plain))
            self.plain += got
            if not got and not piece:
                return

    def _ended(self, end: int) -> bool:
        if self._stream.eof:
            if self._stream.unused_data or self._at < len(self._source):
                raise InvalidRequest("body: bytes follow the compressed stream")
            return True
        if len(self.plain) < end:
            raise InvalidRequest("body: the compressed stream is cut short")
        return False
