"""Writes a small sentence encoder with random weights: `python make_encoder.py FOLDER`, run in the converter's
environment. Unlike all-MiniLM-L6-v2 it is cased, takes the [CLS] token's state and does not scale it.
"""

from __future__ import annotations

import json
import string
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def main(folder: Path) -> None:
    letters = string.ascii_letters + string.digits + "äöüß"
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), "the", "##ing", ".", ","]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(pieces), max_position_embeddings=40, initializer_range=0.5, **sizes)
    BertModel(config).save_pretrained(folder, safe_serialization=True)
    steps = [("Transformer", ""), ("Pooling", "1_Pooling")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{step}"} for step, path in steps]
    (folder / "1_Pooling").mkdir()
    for name, content in {
        "modules.json": modules,
        "1_Pooling/config.json": {"pooling_mode_cls_token": True},
        "sentence_bert_config.json": {"max_seq_length": 32},
        "tokenizer_config.json": {"pad_token": "[PAD]"},
    }.items():
        (folder / name).write_text(json.dumps(content))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
