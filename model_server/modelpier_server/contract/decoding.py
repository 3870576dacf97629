"""Reads the fields of what came over the wire; whatever does not follow the contract is refused by its name.

Called by the `decode` of plans, reports and failures; `where` is the path so far, as in `plan.models[0]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

E = TypeVar("E", bound=StrEnum)


class ContractError(ValueError):
    """A plan, report or message that does not follow the contract; the text names the field."""


def parse(raw: bytes | str, where: str) -> Any:
    """What comes out can always be written again: JSON alone would let halves of surrogate pairs in, which are no text
    and fail wherever they are encoded.
    """
    try:
        text = raw if isinstance(raw, str) else raw.decode()
        value = json.loads(text, parse_constant=_no_constant)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{where}: not JSON: {error}") from error
    return value


def dump(value: Any) -> bytes:
    """Of what a server says: names of files and messages of others may hold what is no text, and become `?`."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ContractError(f"{where}: must be an object")
    return value


def array(data: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = data.get(key)
    if not isinstance(value, list):
        raise ContractError(f"{where}.{key}: must be an array")
    return value


def text(data: Mapping[str, Any], key: str, where: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise ContractError(f"{where}.{key}: must be a non-empty string")
    return value


def optional_text(data: Mapping[str, Any], key: str, where: str) -> str | None:
    return None if data.get(key) is None else text(data, key, where)


def whole(data: Mapping[str, Any], key: str, where: str, *, low: int = 0, default: int | None = None) -> int:
    value = data.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ContractError(f"{where}.{key}: must be a whole number >= {low}")
    return value


def number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST_NUMBER:
        raise ContractError(f"{where}: must be a number")
    return float(value)


_LARGEST_NUMBER = 1e300
"""Larger whole numbers do not become floats."""


def flag(data: Mapping[str, Any], key: str, where: str, *, default: bool) -> bool:
    value = data.get(key, default)
    if not isinstance(value, bool):
        raise ContractError(f"{where}.{key}: must be true or false")
    return value


def digest(data: Mapping[str, Any], where: str) -> str | None:
    value = optional_text(data, "digest", where)
    if value is not None and not _DIGEST.fullmatch(value):
        raise ContractError(f"{where}.digest: must be sha256: and 64 hexadecimal digits in lower case")
    return value


_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def member(enum: type[E], data: Mapping[str, Any], key: str, where: str) -> E:
    try:
        return enum(str(data.get(key)))
    except ValueError as error:
        raise ContractError(f"{where}.{key}: must be one of {', '.join(enum)}") from error
