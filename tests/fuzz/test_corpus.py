"""Every saved input of the fuzzing, and every one that once broke something, is taken or refused as it should be."""

from __future__ import annotations

import pytest

from fuzz.campaign import CORPUS, REGRESSIONS
from fuzz.targets import TARGETS, Target

MOST_BYTES = 1_000_000
"""Of the saved corpus: it is in everybody's checkout."""


@pytest.mark.parametrize("target", [t for t in TARGETS.values() if not t.foreign], ids=lambda target: target.name)
def test_saved_inputs(target: Target) -> None:
    check = target.make()
    files = [f for folder in (CORPUS, REGRESSIONS) for f in sorted((folder / target.name).glob("*"))]
    assert files, "there is no saved corpus"
    for data in target.seeds().values():
        check(data)
    for file in files:
        try:
            check(file.read_bytes())
        except Exception as error:
            raise AssertionError(f"{file.relative_to(CORPUS.parent)}: {error}") from error


def test_the_corpus_is_small() -> None:
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) < MOST_BYTES


def test_every_saved_input_has_a_target() -> None:
    assert {folder.name for root in (CORPUS, REGRESSIONS) if root.is_dir() for folder in root.iterdir()} <= set(TARGETS)
