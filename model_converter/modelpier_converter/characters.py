"""What a tokenizer's normaliser does to every single character, as tables that a graph can hold.

BERT's normaliser (remove control characters, isolate CJK ideographs, decompose, strip accents, lower the case) and its
pre-tokenizer (split at spaces, isolate punctuation) look at one character at a time. So asking them about each of
Unicode's code points says all that they do, with the very Unicode tables that the model was trained with; the
tokenizers' operators of onnxruntime-extensions have others and get Russian, Greek, Korean or Vietnamese wrong.

Source of the rules: BERT's `tokenization.py` (Google Research, 2018), classes BasicTokenizer and WordpieceTokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

SURROGATES = range(0xD800, 0xE000)
CODE_POINTS = 0x110000

Split = Callable[[str], list[str]]
"""A text to its words, normalised."""


@dataclass
class Characters:
    """Code points by what becomes of them; in none of these: kept as they are."""

    removed: list[int] = field(default_factory=list)
    isolated: list[int] = field(default_factory=list)
    """Words of their own, kept as they are."""
    replaced: dict[str, str] = field(default_factory=dict)
    """Written otherwise; spaces end words."""


def classify(split: Split, code_points: Iterable[int] = range(CODE_POINTS)) -> Characters:
    """Some ten seconds for all of Unicode. Raises ValueError when `split` looks at more than one character."""
    found = Characters()
    for code_point in code_points:
        if code_point not in SURROGATES:
            _classify(code_point, split, found)
    return found


def _classify(code_point: int, split: Split, found: Characters) -> None:
    character = chr(code_point)
    # Between letters, to see where words end; every normaliser leaves an `a` as it is.
    words = " ".join(split(f"a{character}a"))
    if words[:1] != "a" or words[-1:] != "a":
        raise ValueError(f"U+{code_point:04X} changes the letters beside it: a{character}a becomes {words}")
    match words[1:-1]:
        case "":
            found.removed.append(code_point)
        case alone if alone == f" {character} ":
            found.isolated.append(code_point)
        case other if other != character:
            found.replaced[character] = other


def ranges(code_points: Iterable[int]) -> list[range]:
    """The fewest that hold them all and no others."""
    found: list[range] = []
    for code_point in sorted(code_points):
        if found and found[-1].stop == code_point:
            found[-1] = range(found[-1].start, code_point + 1)
        else:
            found.append(range(code_point, code_point + 1))
    return found


def pattern(spans: Iterable[range]) -> str:
    """A character class of RE2."""
    return "[" + "".join(rf"\x{{{span.start:X}}}-\x{{{span.stop - 1:X}}}" for span in spans) + "]"
