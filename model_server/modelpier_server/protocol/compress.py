"""Answers that are compressed because the client asks for it. Sources: RFC 9110, sections 8.4.1 and 12.5.3.

`transport` asks `coding_of` for answers of LEAST bytes or more, and runs `compress` for the large ones in a thread.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

LEAST = 4096
"""Bytes. Smaller answers fit into a few packets anyhow."""
LARGE = 16 * 1024
"""Bytes, some 0.2 ms of work: more would keep the event loop from others."""
LEVEL = 1
"""Of zlib: JSON gets little smaller by higher ones, and takes several times as long."""
SAMPLE = 64 * 1024
WORTH = 0.9
"""Of the first SAMPLE bytes: tensors of floats hardly get smaller, and are sent as they are."""
_WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


def coding_of(accept: str) -> str | None:
    """The one of the header Accept-Encoding that is written here, the client's favourite first; None: neither."""
    weights: dict[str, float] = {}
    for entry in accept.lower().split(","):
        name, _, parameters = entry.partition(";")
        weights[name.strip().removeprefix("x-")] = _weight(parameters)
    found = {name: weights.get(name, weights.get("*", 0.0)) for name in _WINDOWS}
    best = max(found, key=lambda name: found[name])
    return best if found[best] > 0 and found[best] >= weights.get("identity", 0.0) else None


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def compress(parts: Sequence[bytes | memoryview], coding: str) -> bytes | None:
    """None where it is not worth it."""
    packer, taken, packed = zlib.compressobj(LEVEL, wbits=_WINDOWS[coding]), 0, []
    for piece in _pieces(parts):
        packed.append(packer.compress(piece))
        taken += len(piece)
        if taken == SAMPLE:
            packed.append(packer.flush(zlib.Z_SYNC_FLUSH))
            if sum(map(len, packed)) > WORTH * SAMPLE:
                return None
    packed.append(packer.flush())
    answer = b"".join(packed)
    return answer if len(answer) < WORTH * taken else None


def _pieces(parts: Sequence[bytes | memoryview]) -> list[memoryview]:
    """The same bytes; a piece ends where the sample does."""
    pieces, left = [], SAMPLE
    for part in parts:
        view = memoryview(part).cast("B")
        if 0 < left < len(view):
            pieces.append(view[:left])
            view, left = view[left:], 0
        else:
            left = max(0, left - len(view))
        pieces.append(view)
    return pieces
