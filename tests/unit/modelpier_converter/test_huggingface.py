"""Directories of models: what is read from them, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelpier_converter import __main__ as command_line
from modelpier_converter.errors import SourceError
from modelpier_converter.huggingface import WEIGHTS_LIMIT, describe

Files = dict[str, Any]


def files() -> Files:
    """As all-MiniLM-L6-v2 has them."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    return {
        "config.json": {"max_position_embeddings": 512},
        "sentence_bert_config.json": {"max_seq_length": 256},
        "tokenizer_config.json": {"pad_token": "[PAD]"},
        "modules.json": [
            {"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "1_Pooling/config.json": {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
        "tokenizer.json": {
            "added_tokens": [{"content": token, "special": True} for token in special],
            "normalizer": {"type": "BertNormalizer"},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
                ],
            },
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": {token: number for number, token in enumerate(special)},
            },
        },
    }


def write(folder: Path, content: Files) -> Path:
    for name, value in content.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_sentence_encoder(tmp_path: Path) -> None:
    source = describe(write(tmp_path, files()))
    assert (source.pooling, source.normalise, source.max_length) == ("mean", True, 256)
    assert (source.begin, source.end, source.padding, source.unknown) == ("[CLS]", "[SEP]", "[PAD]", "[UNK]")
    assert source.special == {"[PAD]", "[UNK]", "[CLS]", "[SEP]"}


def test_another_one(tmp_path: Path) -> None:
    content = files()
    content["modules.json"].pop()
    content["1_Pooling/config.json"] = {"pooling_mode_cls_token": True}
    content["sentence_bert_config.json"] = {"max_seq_length": None}
    content["tokenizer_config.json"] = {"pad_token": {"content": "[UNK]"}}
    content["tokenizer.json"]["post_processor"] = {"type": "BertProcessing", "cls": ["[SEP]", 3], "sep": ["[CLS]", 2]}
    source = describe(write(tmp_path, content))
    assert (source.pooling, source.normalise, source.max_length) == ("cls", False, 512)
    assert (source.begin, source.end, source.padding) == ("[SEP]", "[CLS]", "[UNK]")


def edit(name: str, *path: Any, value: Any) -> Callable[[Files], None]:
    def change(content: Files) -> None:
        place = content[name]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("modules.json"), r"modules\.json is missing"),
        (lambda content: content.update({"config.json": "{"}), r"config\.json: "),
        (edit("modules.json", 1, "type", value="x.Dense"), r"modules\.json: Transformer -> Dense"),
        (edit("1_Pooling/config.json", "pooling_mode_cls_token", value=True), r"1_Pooling/config\.json: .*is true"),
        (edit("1_Pooling/config.json", "pooling_mode_mean_tokens", value=False), "no pooling mode is true"),
        (edit("tokenizer.json", "model", "type", value="BPE"), "model.type is BPE, and WordPiece is"),
        (edit("tokenizer.json", "normalizer", value=None), "normalizer.type is None, and BertNormalizer is"),
        (edit("tokenizer.json", "pre_tokenizer", "type", value="Whitespace"), "pre_tokenizer.type is Whitespace"),
        (edit("tokenizer.json", "model", "max_input_chars_per_word", value=200), "max_input_chars_per_word is 200"),
        (edit("tokenizer.json", "added_tokens", 0, "special", value=False), r"added token '\[PAD\]'"),
        (edit("tokenizer.json", "added_tokens", 0, "content", value="<x>"), "added token '<x>'"),
        (edit("tokenizer.json", "post_processor", value=None), "post_processor must put"),
        (edit("tokenizer.json", "post_processor", "single", value=[]), "one token before and one after"),
        (edit("tokenizer_config.json", "pad_token", value="<pad>"), "pad_token '<pad>' is not in the vocabulary"),
        (edit("config.json", "max_position_embeddings", value=0), "max_position_embeddings"),
    ],
)
def test_what_cannot_be_converted(tmp_path: Path, change: Callable[[Files], object], message: str) -> None:
    content = files()
    change(content)
    with pytest.raises(SourceError, match=message):
        describe(write(tmp_path, content))


def test_weights_that_may_run_code_are_not_read(tmp_path: Path) -> None:
    folder = write(tmp_path, files())
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(SourceError, match="weights are read from safetensors alone"):
        describe(folder)


def test_weights_that_are_too_large(tmp_path: Path) -> None:
    folder = write(tmp_path, files())
    with (folder / "model.safetensors").open("wb") as weights:
        weights.truncate(WEIGHTS_LIMIT + (1 << 20))
    with pytest.raises(SourceError, match="1537 MiB, and up to 1536 MiB"):
        describe(folder)


def test_the_command_line_asks_for_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command_line.main(["sentence-encoder", "folder"])
    assert end.value.code == 2
    assert "-o/--out" in capsys.readouterr().err
