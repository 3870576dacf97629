"""A normaliser, asked about single characters, becomes tables that do the same to whole texts."""

from __future__ import annotations

import unicodedata

import pytest

from modelpier_converter.characters import classify, pattern, ranges
from modelpier_converter.errors import SourceError
from modelpier_converter.spelling import UNKNOWN, Spelling, spelling

LATIN = range(0x250)
IDEOGRAPHS = range(0x6E00, 0x7400)


def split(text: str) -> list[str]:
    """As BERT's uncased tokenizer, from Python's tables."""
    kept = "".join(c for c in text if c in "\t\n\r" or unicodedata.category(c)[0] != "C")
    spaced = "".join(f" {c} " if ord(c) in IDEOGRAPHS else c for c in kept)
    bare = "".join(c for c in unicodedata.normalize("NFD", spaced) if unicodedata.category(c) != "Mn")
    marked = "".join(f" {c} " if unicodedata.category(c)[0] == "P" else c for c in bare.lower())
    return marked.split()


def test_each_character_finds_its_place() -> None:
    found = classify(split, [ord(c) for c in "aAéß.\t \u00a0\u0301\u00ad漢"])
    assert found.removed == [0x301, 0xAD]
    assert found.isolated == [ord("."), ord("漢")]
    assert found.replaced == {"A": "a", "é": "e", "\t": " ", "\u00a0": " "}


def test_surrogates_are_no_characters() -> None:
    assert classify(split, range(0xD800, 0xE000)) == classify(split, [])


def test_a_normaliser_that_looks_further_is_refused() -> None:
    with pytest.raises(ValueError, match=r"U\+0062 changes the letters beside it"):
        classify(lambda text: [text.replace("ab", "x")], [ord("b")])


def test_ranges() -> None:
    assert ranges([5, 1, 2, 3, 9]) == [range(1, 4), range(5, 6), range(9, 10)]
    assert ranges([]) == []
    assert pattern([range(0x41, 0x5B), range(0x1F600, 0x1F601)]) == r"[\x{41}-\x{5A}\x{1F600}-\x{1F600}]"


def spelt(text: str, letters: Spelling) -> list[str]:
    return "".join(letters.letters.get(letter, UNKNOWN) for letter in text).split()


def test_letters_without_pieces_are_unknown() -> None:
    vocabulary = {"c", "##c", "a", "##a", "e", "##e", "f", "##f", "cafe", ".", "漢"}
    letters = spelling(classify(split, [*LATIN, *IDEOGRAPHS]), vocabulary, "##")
    assert spelt("Café", letters) == ["cafe"]
    assert spelt("face.\tCAFE!", letters) == ["face", ".", "cafe", UNKNOWN]
    assert spelt("cafx", letters) == [f"caf{UNKNOWN}"]
    assert letters.letters["\u00ad"] == ""
    assert "漢" in letters.letters
    assert "字" not in letters.letters


def test_long_runs_are_told_by_a_pattern() -> None:
    letters = spelling(classify(split, [*IDEOGRAPHS, *range(0xE000, 0xF900), 0x7F]), {"a", "##a"}, "##")
    assert letters.isolated == (IDEOGRAPHS,)
    assert letters.removed == (range(0xE000, 0xF900),)
    assert letters.letters == {" ": " ", "a": "a", "\x7f": ""}


@pytest.mark.parametrize(
    "vocabulary", [{"a", "##a", "ab"}, {"a", "##a", "b"}, {"a", "##a", "##b"}, {"a", "##a", "##cb"}]
)
def test_a_vocabulary_of_which_words_cannot_be_told(vocabulary: set[str]) -> None:
    with pytest.raises(SourceError, match=r"longer pieces with these letters: .*b"):
        spelling(classify(split, LATIN), vocabulary, "##")
