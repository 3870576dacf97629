"""Compressed bodies. The first byte says how (gzip or deflate), the second how much may come out."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping

from fuzz.codecs import refused
from fuzz.targets import Check
from modelpier_server.errors import ServerError
from modelpier_server.protocol.inflate import Inflation

ENCODINGS = ("gzip", "deflate", "x-gzip", "br")
MOST_STEPS = 10_000
"""Each gives something, or is the last but one."""


def make_inflate() -> Check:
    def check(data: bytes) -> None:
        if len(data) < 2:
            return
        encoding, limit, body = ENCODINGS[data[0] % 4], data[1] * 64, data[2:]
        try:
            inflation = Inflation(body, encoding, limit)
            for _ in range(MOST_STEPS):
                if inflation.step():
                    break
            else:
                raise AssertionError("it comes to no end")
        except ServerError as error:
            refused(error)
            return
        assert len(inflation.plain) <= limit
        assert bytes(inflation.plain) in _all_at_once(body, encoding)

    return check


def _all_at_once(body: bytes, encoding: str) -> list[bytes]:
    """As zlib itself has it."""
    windows = (31,) if encoding != "deflate" else (zlib.MAX_WBITS, -zlib.MAX_WBITS)
    found = []
    for window in windows:
        try:
            found.append(zlib.decompress(body, window))
        except zlib.error:
            continue
    return found


def seeds_inflate() -> Mapping[str, bytes]:
    text = b'{"inputs": [' + b"1.5, " * 100 + b"]}"
    raw = zlib.compressobj(wbits=-15)
    return {
        "gzip": b"\0\xff" + gzip.compress(text, mtime=0),
        "deflate": b"\1\xff" + zlib.compress(text),
        "raw": b"\1\xff" + raw.compress(text) + raw.flush(),
        "bomb": b"\0\x04" + gzip.compress(bytes(100_000), mtime=0),
        "short": b"\0\xff" + gzip.compress(text, mtime=0)[:-9],
        "other": b"\3\xffabc",
    }
