"""JSON to what a codec takes: the one place where msgspec's errors become those of callers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from modelpier_server.errors import InvalidRequest

T = TypeVar("T")


def decoded(decode: Callable[[Any], T], raw: Any, where: str) -> T:
    """`decode` of a msgspec decoder. Raises InvalidRequest that begins with `where`."""
    try:
        return decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{where}: {error}") from error
    except RecursionError as error:
        raise InvalidRequest(f"{where}: nested too deeply") from error
