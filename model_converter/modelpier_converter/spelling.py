"""A vocabulary and what becomes of characters, to a table of letters: how every text is written before the search for
word pieces, so that each of its words is either one that has pieces or UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from modelpier_converter.characters import Characters, ranges
from modelpier_converter.errors import SourceError

UNKNOWN = "\ue000"
"""Stands for each letter that no piece has: a code point for private use, which normalisers remove from texts."""
LONG = 1000
"""Code points in a row that are better told by a pattern (CJK ideographs, private use) than one by one."""


@dataclass(frozen=True)
class Spelling:
    removed: tuple[range, ...]
    isolated: tuple[range, ...]
    """Get spaces around them, before:"""
    letters: dict[str, str]
    """What to write for a letter; UNKNOWN for every other."""


def spelling(characters: Characters, vocabulary: Collection[str], prefix: str) -> Spelling:
    """Raises SourceError for a vocabulary of which this cannot tell the words that have pieces."""
    known = _alphabet(characters, vocabulary, prefix)
    long_removed, removed = _by_length(characters.removed)
    long_isolated, isolated = _by_length(characters.isolated)
    letters = {letter: letter for letter in sorted({" ", *known})}
    letters |= {letter: _write(other, known) for letter, other in characters.replaced.items()}
    letters |= {letter: _write(f" {letter} ", known) for letter in isolated}
    letters |= dict.fromkeys(removed, "")
    return Spelling(long_removed, long_isolated, letters)


def _by_length(code_points: Iterable[int]) -> tuple[tuple[range, ...], list[str]]:
    spans = ranges(code_points)
    return tuple(s for s in spans if len(s) >= LONG), [chr(c) for s in spans if len(s) < LONG for c in s]


def _write(text: str, known: Collection[str]) -> str:
    return "".join(letter if letter == " " or letter in known else UNKNOWN for letter in text)


def _alphabet(characters: Characters, vocabulary: Collection[str], prefix: str) -> set[str]:
    """Letters that may stand anywhere: a word of such always has pieces, if only of one letter each, and a word with
    any other has none. Vocabularies that were learned from texts are so; of others it cannot be told without trying.
    """
    later = {piece.removeprefix(prefix) for piece in vocabulary if piece.startswith(prefix) and piece != prefix}
    first = {piece for piece in vocabulary if len(piece) == 1}
    isolated = {chr(code_point) for code_point in characters.isolated}
    known = first & (later | isolated)
    whole = {piece for piece in vocabulary if not piece.startswith(prefix)}
    used = {letter for piece in later | whole for letter in piece}
    if doubtful := used - known - isolated - characters.replaced.keys() - {chr(c) for c in characters.removed}:
        some = " ".join(sorted(doubtful)[:10])
        raise SourceError(f"tokenizer.json: the vocabulary holds only longer pieces with these letters: {some}")
    return known
