"""A sentence encoder of sentence-transformers to one ONNX file: `sentences` string [batch] in, `embeddings` float
[batch, size] out. The tokenizer is within, so callers send text.

`convert` is called by the command line.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import ModelProto, compose
from tokenizers import Tokenizer

from modelpier_converter import torch_encoder
from modelpier_converter.characters import classify
from modelpier_converter.errors import SourceError
from modelpier_converter.huggingface import Source, describe
from modelpier_converter.sentences import BATCHES
from modelpier_converter.spelling import spelling
from modelpier_converter.verify import Comparison, compare, open_model
from modelpier_converter.wordpiece import IDS, IR_VERSION, MASK, OPSET, WordPiece, tokenizer_model

OUTPUT = "embeddings"
PREFIX = "encoder/"


@dataclass(frozen=True)
class Report:
    """What was made, and how well it agrees with the original."""

    sha256: str
    bytes: int
    opset: int
    max_length: int
    compared: Comparison
    embeddings: list[list[float]] = field(default_factory=list)
    """The original's answers to the caller's own sentences."""


def convert(folder: Path, out: Path, sentences: Sequence[str] = ()) -> Report:
    """Writes `out` when, and only when, it answers as torch does: also to `sentences`, if any.

    Raises SourceError, VerificationError.
    """
    source = describe(folder)
    encoder, tokenizer = torch_encoder.load(source), torch_encoder.load_tokenizer(source)
    model = join(tokenizer_model(word_piece(source, tokenizer)), torch_encoder.export(encoder))
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        onnx.save(model, draft)
        batches = [*BATCHES, tuple(sentences)] if sentences else BATCHES
        compared = compare(open_model(draft), lambda batch: torch_encoder.embed(encoder, tokenizer, batch), batches)
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    answers = torch_encoder.embed(encoder, tokenizer, sentences).tolist() if sentences else []
    raw = out.read_bytes()
    return Report(hashlib.sha256(raw).hexdigest(), len(raw), OPSET, source.max_length, compared, answers)


def word_piece(source: Source, tokenizer: Tokenizer) -> WordPiece:
    """Takes some ten seconds. Raises SourceError."""

    def split(text: str) -> list[str]:
        normal = tokenizer.normalizer.normalize_str(text)
        return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]

    ids = tokenizer.get_vocab()
    vocabulary = sorted(ids, key=ids.__getitem__)
    if list(range(len(vocabulary))) != [ids[piece] for piece in vocabulary]:
        raise SourceError("tokenizer.json: the vocabulary's ids must be 0, 1, 2 and so on")
    letters = spelling(classify(split), set(vocabulary) - source.special, source.prefix)
    return WordPiece(
        vocabulary,
        letters,
        source.max_length,
        prefix=source.prefix,
        unknown=source.unknown,
        begin=source.begin,
        end=source.end,
        padding=source.padding,
    )


def join(tokenizer: ModelProto, encoder: ModelProto) -> ModelProto:
    """One model of both. All names of the encoder get a prefix: none can collide with the tokenizer's or OUTPUT."""
    encoder = compose.add_prefix(encoder, PREFIX)
    encoder.ir_version = IR_VERSION
    _forget_origin(encoder)
    ends = [(IDS, PREFIX + IDS), (MASK, PREFIX + MASK)]
    model: ModelProto = compose.merge_models(tokenizer, encoder, io_map=ends, producer_name="modelpier")
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = [OUTPUT if name == output.name else name for name in node.output]
    output.name = OUTPUT
    return model


def _forget_origin(model: ModelProto) -> None:
    """Of torch, which writes the exporting machine's paths and source lines beside each node."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        part.doc_string = ""
        del part.metadata_props[:]
