"""Shapes as clients declare them against shapes as models declare them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from modelpier_server.errors import InvalidRequest
from modelpier_server.protocol.signature import Signature, Slot

BINARY_REMEDY = 'POST /v2/models/NAME/infer carries it in binary form (parameters: {"binary_data_output": true})'
ELEMENTS_LIMIT = 1 << 40
"""No body can hold that many: a declared size beyond it is refused before anything is multiplied or allocated."""

EMPTY_LIMIT = 1 << 16
"""The other sizes of a tensor without elements, multiplied: it has no bytes that would bound what a run makes of it."""

STRINGS_LIMIT = 1 << 20
"""Of one tensor: a string of a few bytes on the wire takes a hundred in memory, and time of its own."""

JSON_LIMIT = 1 << 24
"""Elements of an output in JSON: to write them takes some 50 ns each, while everybody else waits."""


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


def check_output(slot: Slot, elements: int, *, json: bool) -> None:
    """Raises InvalidRequest for an output that is too large to be written in this form."""
    text = slot.datatype.name == "BYTES"
    most = STRINGS_LIMIT if text else JSON_LIMIT
    if elements > most and (json or text):
        remedy = "ask for fewer rows" if text else f"ask for fewer rows, or the binary form: {BINARY_REMEDY}"
        raise InvalidRequest(f"output '{slot.name}': {elements} elements, and {most} at most can be written; {remedy}")


def _mismatch(shape: Sequence[int], slot: Slot, where: str) -> InvalidRequest:
    takes = f"input '{slot.name}' takes {list(slot.spec.shape)}"
    return InvalidRequest(f"{where}: {list(shape)} does not fit: {takes}, where -1 is any size")
