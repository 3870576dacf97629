"""Kubernetes quantities in their canonical form: used by the types, and by `desired` for whatever goes into a manifest.

The API server rewrites quantities ("1000m" -> "1", "1024Mi" -> "1Gi", "1.5" -> "1500m"). A manifest that holds another
spelling than the server prints would look changed for ever, and two spellings of one intent would make two revisions.
Rules: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/, k8s.io/apimachinery
pkg/api/resource (ParseQuantity, CanonicalizeBytes), and core/v1's defaulting, which rounds resource lists up to 1/1000.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from math import ceil

_FORM = re.compile(
    r"\+?(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?P<suffix>[numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?", re.ASCII
)
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {-3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_EXPONENTS = {"n": -9, "u": -6} | {suffix: exponent for exponent, suffix in _DECIMAL.items()}
_LARGEST_BINARY = 2**63 - 1
_TOO_LARGE = 10**21
"""Beyond 999E the API server prints a number without its suffix."""
_REMEMBERED = 4096
"""A cluster knows few different amounts, and every pass looks at several of them."""


class QuantityError(ValueError):
    """Not a quantity; the text quotes it and says what one looks like."""


@lru_cache(_REMEMBERED, typed=True)
def normalise_quantity(value: str | float) -> str:
    """The form in which the API server prints `value` and leaves it alone; fractions of 1/1000 are rounded up.

    Raises QuantityError for what is no quantity, is negative, or is 10**21 or more.
    """
    text = str(value).strip()
    if not (form := _FORM.fullmatch(text)):
        raise QuantityError(f"{text!r} is not a quantity: write it as 500m, 2, 1.5 or 4Gi")
    number, suffix = Fraction(form["number"]), form["suffix"] or ""
    if suffix in _BINARY[1:]:
        return _binary(number * 1024 ** _BINARY.index(suffix))
    if suffix in _EXPONENTS:
        return _decimal(_thousandths(number * _power_of_ten(_EXPONENTS[suffix]), text))
    return _decimal(_thousandths(number * _power_of_ten(int(suffix[1:])), text), scientific=True)


@lru_cache(_REMEMBERED, typed=True)
def quantity_value(value: str | float) -> Fraction:
    """The number: cores, bytes or pieces. Raises QuantityError as `normalise_quantity` does."""
    form = _FORM.fullmatch(normalise_quantity(value))
    if form is None:
        raise AssertionError("a canonical quantity has the form of a quantity")
    number, suffix = Fraction(form["number"]), form["suffix"] or ""
    if suffix in _BINARY:
        return number * Fraction(2) ** (10 * _BINARY.index(suffix))
    exponent = _EXPONENTS[suffix] if suffix in _EXPONENTS else int(suffix[1:])
    return number * _power_of_ten(exponent)


def _power_of_ten(exponent: int) -> Fraction:
    factor: int = 10 ** abs(exponent)
    return Fraction(factor) if exponent >= 0 else Fraction(1, factor)


def _thousandths(value: Fraction, text: str) -> int:
    if value >= _TOO_LARGE:
        raise QuantityError(f"{text!r} is too large for a quantity: the largest is 999E")
    return ceil(value * 1000)


def _binary(value: Fraction) -> str:
    """Values below 1024 and fractions have no binary form: the API server prints them as decimals."""
    capped = min(value, Fraction(_LARGEST_BINARY))
    if capped < 1024 or capped.denominator != 1:
        return _decimal(ceil(capped * 1000))
    whole, power = int(capped), 0
    while whole % 1024 == 0 and power < len(_BINARY) - 1:
        whole, power = whole // 1024, power + 1
    return f"{whole}{_BINARY[power]}"


def _decimal(thousandths: int, *, scientific: bool = False) -> str:
    """The largest suffix, or exponent that is a multiple of 3, which leaves a whole number."""
    if thousandths == 0:
        return "0"
    whole, exponent = thousandths, -3
    while whole % 1000 == 0 and exponent < max(_DECIMAL):
        whole, exponent = whole // 1000, exponent + 3
    if scientific:
        return f"{whole}e{exponent}" if exponent else str(whole)
    return f"{whole}{_DECIMAL[exponent]}"
