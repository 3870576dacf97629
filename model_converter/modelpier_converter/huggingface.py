"""What a directory of sentence-transformers says about its model, checked before anything heavy is imported.

`describe` is called by `sentence_encoder`. Formats: sentence-transformers' `modules.json`, `*_Pooling/config.json` and
`sentence_bert_config.json`; Hugging Face's `config.json`, `tokenizer.json` (tokenizers' serialisation) and
`model.safetensors`. Nothing in the directory is executed: weights come from safetensors alone, and code that it may
carry stays unread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from modelpier_converter.errors import SourceError

Json = dict[str, Any]
Pooling = Literal["mean", "cls"]
WEIGHTS = "model.safetensors"
WEIGHTS_LIMIT = 1536 << 20
"""Bytes: a single ONNX file ends at 2 GiB."""
STEPS = ("Transformer", "Pooling", "Normalize")
POOLINGS: dict[str, Pooling] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_LETTERS_OF_A_WORD = 100
"""Longer words are unknown; onnxruntime-extensions knows no other limit."""


@dataclass(frozen=True)
class Source:
    folder: Path
    pooling: Pooling
    normalise: bool
    """Whether embeddings are scaled to length 1."""
    max_length: int
    """Tokens with the two special ones around them; the rest of a text is cut off."""
    prefix: str
    unknown: str
    begin: str
    end: str
    padding: str
    special: frozenset[str]


def describe(folder: Path) -> Source:
    """Raises SourceError naming the file, and what was expected in it."""
    _check_weights(folder)
    tokenizer = _read(folder, "tokenizer.json")
    _check_tokenizer(tokenizer)
    pooling, normalise = _modules(folder)
    begin, end = _template(tokenizer.get("post_processor") or {})
    model = tokenizer["model"]
    return Source(
        folder,
        pooling,
        normalise,
        _max_length(folder),
        prefix=model["continuing_subword_prefix"],
        unknown=model["unk_token"],
        begin=begin,
        end=end,
        padding=_padding(folder, tokenizer),
        special=frozenset(token["content"] for token in tokenizer.get("added_tokens", ())),
    )


def _read(folder: Path, name: str) -> Any:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{name} is missing in {folder}: a directory of sentence-transformers is needed") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{name}: {error}") from error


def _check_weights(folder: Path) -> None:
    try:
        size = (folder / WEIGHTS).stat().st_size
    except OSError:
        raise SourceError(
            f"{WEIGHTS} is missing in {folder}: weights are read from safetensors alone, "
            "because other formats can run code"
        ) from None
    if size > WEIGHTS_LIMIT:
        raise SourceError(f"{WEIGHTS}: {size >> 20} MiB, and up to {WEIGHTS_LIMIT >> 20} MiB can be converted")


def _check_tokenizer(tokenizer: Json) -> None:
    """Only BERT's normaliser looks at one character at a time, on which the graph relies."""
    parts = {"model": "WordPiece", "normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}
    for part, kind in parts.items():
        if (found := (tokenizer.get(part) or {}).get("type")) != kind:
            raise SourceError(f"tokenizer.json: {part}.type is {found}, and {kind} is what can be converted")
    model = tokenizer["model"]
    if (limit := model.get("max_input_chars_per_word", _LETTERS_OF_A_WORD)) != _LETTERS_OF_A_WORD:
        raise SourceError(
            f"tokenizer.json: model.max_input_chars_per_word is {limit}, "
            f"and {_LETTERS_OF_A_WORD} is what can be converted"
        )
    for token in tokenizer.get("added_tokens", ()):
        if not token.get("special") or token["content"] not in model["vocab"]:
            raise SourceError(
                f"tokenizer.json: the added token {token['content']!r} is none of the model's special ones"
            )


def _template(post_processor: Json) -> tuple[str, str]:
    """The tokens before and after a text."""
    match post_processor:
        case {"type": "BertProcessing", "cls": [str(begin), *_], "sep": [str(end), *_]}:
            return begin, end
        case {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": str(begin)}},
                {"Sequence": {"id": "A"}},
                {"SpecialToken": {"id": str(end)}},
            ],
        }:
            return begin, end
    raise SourceError("tokenizer.json: post_processor must put one token before and one after a text, as BERT's does")


def _padding(folder: Path, tokenizer: Json) -> str:
    declared = _read(folder, "tokenizer_config.json").get("pad_token") or "[PAD]"
    name = str(declared["content"] if isinstance(declared, dict) else declared)
    if name not in tokenizer["model"]["vocab"]:
        raise SourceError(f"tokenizer_config.json: the pad_token {name!r} is not in the vocabulary")
    return name


def _modules(folder: Path) -> tuple[Pooling, bool]:
    modules = _read(folder, "modules.json")
    steps = tuple(str(module["type"]).rpartition(".")[2] for module in modules)
    if steps not in {STEPS[:2], STEPS}:
        raise SourceError(f"modules.json: {' -> '.join(steps)}, and {' -> '.join(STEPS)} is what can be converted")
    config = _read(folder, f"{modules[1]['path']}/config.json")
    modes = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise SourceError(
            f"{modules[1]['path']}/config.json: {', '.join(modes) or 'no pooling mode'} is true, "
            f"and one of {', '.join(POOLINGS)} is what can be converted"
        )
    return POOLINGS[modes[0]], "Normalize" in steps


def _max_length(folder: Path) -> int:
    places = int(_read(folder, "config.json").get("max_position_embeddings", 0))
    asked = _read(folder, "sentence_bert_config.json").get("max_seq_length") or places
    if not 2 < min(asked, places) <= places:
        raise SourceError("config.json: max_position_embeddings must say how many tokens the model takes")
    return min(int(asked), places)
