"""Shapes as clients declare them against shapes as models declare them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol.signature import Signature, Slot

ELEMENTS_LIMIT = 1 << 40
"""No body can hold that many: a declared size beyond it is refused before anything is multiplied or allocated."""

EMPTY_LIMIT = 1 << 16
"""The other sizes of a tensor without elements, multiplied: it has no bytes that would bound what a run makes of it."""

STRINGS_LIMIT = 1 << 20
"""Of one tensor: a string of a few bytes on the wire takes a hundred in memory, and time of its own."""


def check_shape(shape: Sequence[int], slot: Slot, signature: Signature, where: str) -> int:
    """Number of elements of `shape`. Raises InvalidRequest naming `where` unless the model takes it."""
    expected = slot.spec.shape
    if len(shape) != len(expected):
        raise _mismatch(shape, slot, where)
    for got, want in zip(shape, expected, strict=True):
        if got != want if want >= 0 else not 0 <= got < ELEMENTS_LIMIT:
            raise _mismatch(shape, slot, where)
    elements = prod(shape)
    if elements >= ELEMENTS_LIMIT:
        raise InvalidRequest(f"{where}: {list(shape)} has more elements than any request can carry")
    if not elements and shape[0] == 0 and not signature.empty_rows:
        raise InvalidRequest(f"{where}: {list(shape)} has no rows; send at least one")
    if not elements and prod(size for size in shape if size) > EMPTY_LIMIT:
        raise InvalidRequest(
            f"{where}: {list(shape)} has no elements, and its other sizes make more than {EMPTY_LIMIT}; send fewer"
        )
    if elements > STRINGS_LIMIT and slot.datatype.name == "BYTES":
        raise InvalidRequest(f"{where}: {elements} strings are more than the {STRINGS_LIMIT} of one tensor; send fewer")
    return elements


def _mismatch(shape: Sequence[int], slot: Slot, where: str) -> InvalidRequest:
    takes = f"input '{slot.name}' takes {list(slot.spec.shape)}"
    return InvalidRequest(f"{where}: {list(shape)} does not fit: {takes}, where -1 is any size")
