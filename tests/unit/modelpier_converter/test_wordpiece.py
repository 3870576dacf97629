"""The tokenizer's graph, run: a small vocabulary, every step of BERT's tokenization."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import onnxruntime_extensions
import pytest

from modelpier_converter.spelling import Spelling
from modelpier_converter.wordpiece import WordPiece, tokenizer_model

LETTERS = "abcdefghij"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{c}" for c in LETTERS), "cab", "##bage", ".", "漢"]
SPELLING = Spelling(
    removed=(range(0xE000, 0xF900),),
    isolated=(range(0x4E00, 0x9FFF),),
    letters={
        **{letter: letter for letter in f" {LETTERS}漢"},
        **{letter.upper(): letter for letter in LETTERS},
        "é": "e",
        "\t": " ",
        "\x00": "",
        "\u0301": "",
        ".": " . ",
        "ﬁ": "f\ue000",
    },
)
MAX_LENGTH = 12


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    model = tokenizer_model(WordPiece(VOCABULARY, SPELLING, MAX_LENGTH))
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    return ort.InferenceSession(model.SerializeToString(), options)


def tokens(session: ort.InferenceSession, *sentences: str) -> list[str]:
    """Of each sentence, without its padding."""
    ids, mask = session.run(["ids", "mask"], {"sentences": np.array(sentences, np.object_)})
    assert ids.dtype == mask.dtype == np.int64
    assert ids.shape == mask.shape == (len(sentences), mask.sum(1).max())
    assert not ids[mask == 0].any(), "rows are padded with [PAD], which is 0"
    return [" ".join(VOCABULARY[i] for i in row[: length.sum()]) for row, length in zip(ids, mask, strict=True)]


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("", ""),
        ("  \t ", ""),
        ("cab", "cab"),
        ("cabbage", "cab ##bage"),
        ("bad cab", "b ##a ##d cab"),
        ("  CAB \t cab  ", "cab cab"),
        ("Café", "c ##a ##f ##e"),
        ("cafe\u0301", "c ##a ##f ##e"),
        ("cab.cab", "cab . cab"),
        ("a漢b", "a 漢 b"),
        ("a字b", "a [UNK] b"),
        ("字字", "[UNK] [UNK]"),
        ("cabz", "[UNK]"),
        ("zcab cab", "[UNK] cab"),
        ("🙂cab🙂 🙂", "[UNK] [UNK]"),
        ("caﬁb", "[UNK]"),
        ("ca\ue123b", "cab"),
        ("ca\x00b\x00", "cab"),
        ("[CLS]", "[UNK]"),
        ("a[SEP]b", "[UNK]"),
        ("a" * 101, "[UNK]"),
        ("a " * 50, " ".join("a" * (MAX_LENGTH - 2))),
    ],
)
def test_a_sentence(session: ort.InferenceSession, sentence: str, expected: str) -> None:
    assert tokens(session, sentence) == [" ".join(f"[CLS] {expected} [SEP]".split())]


def test_rows_of_a_batch_do_not_know_each_other(session: ort.InferenceSession) -> None:
    sentences = ("cab.", "", "a b c d", "x", "字")
    assert tokens(session, *sentences) == [tokens(session, sentence)[0] for sentence in sentences]


def test_the_batch_is_named(session: ort.InferenceSession) -> None:
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("sentences", "tensor(string)", ["batch"])
    assert [output.shape for output in session.get_outputs()] == [["batch", "longest"]] * 2
