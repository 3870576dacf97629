from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpier_operator.api.quantity import QuantityError, normalise_quantity, quantity_value

SUFFIXES = ("", "n", "u", "m", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi", "e0", "e3", "E-2", "e+5")
numbers = st.builds(
    lambda whole, part: f"{whole}.{part}" if part else str(whole),
    st.integers(0, 10**6 - 1),
    st.one_of(st.just(""), st.integers(0, 999).map(str)),
)
quantities = st.builds(lambda number, suffix: f"{number}{suffix}", numbers, st.sampled_from(SUFFIXES))


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("1000m", "1"),
        ("1024Mi", "1Gi"),
        ("1.5", "1500m"),
        ("0.5Gi", "512Mi"),
        ("1.5Gi", "1536Mi"),
        ("2000", "2k"),
        ("1024", "1024"),
        ("1Ki", "1Ki"),
        ("0.5Ki", "512"),
        ("1000Ki", "1000Ki"),
        ("1.1Ki", "1126400m"),
        ("16Ei", "9223372036854775807"),
        ("007Mi", "7Mi"),
        ("1.500", "1500m"),
        ("+2", "2"),
        ("1.", "1"),
        (".5", "500m"),
        ("12E", "12E"),
        ("100E", "100E"),
        ("1e3", "1e3"),
        ("100e1", "1e3"),
        ("5e-1", "500e-3"),
        ("1e0", "1"),
        ("0.0001", "1m"),
        ("5n", "1m"),
        ("0", "0"),
        ("0.0Gi", "0"),
        (2, "2"),
        (0.5, "500m"),
    ],
)
def test_the_form_is_the_api_servers(written: str | float, printed: str) -> None:
    assert normalise_quantity(written) == printed


@pytest.mark.parametrize("text", ["", "-1", "1 Gi", "1gi", "Gi", "1Kib", "1,5", "0x10", "1e", "१", "1e999", "None"])
def test_what_is_no_quantity_is_quoted(text: str) -> None:
    with pytest.raises(QuantityError, match="is not a quantity: write it as 500m"):
        normalise_quantity(text)


@pytest.mark.parametrize("text", ["1000E", "1e21", "9e99"])
def test_what_the_api_server_would_print_wrongly_is_refused(text: str) -> None:
    with pytest.raises(QuantityError, match="too large"):
        normalise_quantity(text)


@given(quantities)
def test_a_canonical_form_is_its_own(text: str) -> None:
    once = normalise_quantity(text)
    assert normalise_quantity(once) == once


@given(quantities)
def test_the_value_stays_or_is_rounded_up_to_a_thousandth(text: str) -> None:
    exact = exact_value(text)
    assert 0 <= quantity_value(text) - exact < Fraction(1, 1000)
    assert (quantity_value(text) > 0) == (exact > 0)


@given(quantities, quantities)
def test_equal_values_of_one_family_have_one_form(left: str, right: str) -> None:
    family = [("i" in text, "e" in text.lower()) for text in (left, right)]
    if family[0] == family[1] and quantity_value(left) == quantity_value(right):
        assert normalise_quantity(left) == normalise_quantity(right)


def exact_value(text: str) -> Fraction:
    """By the definition alone: number times unit."""
    units = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15}
    if text.endswith("i"):
        return min(Fraction(text[:-2]) * Fraction(1024) ** ("KMGTP".index(text[-2]) + 1), Fraction(2**63 - 1))
    if "e" in text.lower():
        number, _, exponent = text.lower().partition("e")
        return Fraction(number) * Fraction(10) ** int(exponent)
    if text[-1] in units:
        return Fraction(text[:-1]) * Fraction(10) ** units[text[-1]]
    return Fraction(text)
