"""Random texts through the tokenizer's graph and through the original: `python compare_tokens.py FOLDER`, run in the
converter's environment. Prints the texts whose tokens differ, as JSON.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import onnxruntime_extensions

from modelpier_converter import sentence_encoder, torch_encoder
from modelpier_converter.huggingface import describe
from modelpier_converter.sentences import BATCHES
from modelpier_converter.wordpiece import tokenizer_model

TEXTS = 4000
COMMON = " aAeéßz.,-'09"
PLANES = (
    *range(0x3000),  # alphabets, accents, punctuation, control characters
    *range(0x3000, 0x10000, 41),  # CJK, Hangul, private use, compatibility forms
    *range(0x10000, 0x110000, 997),  # emoji, historic scripts, more CJK, what is not assigned
)


def texts() -> list[str]:
    choose = random.Random(7)
    letters = [chr(code_point) for code_point in PLANES if not 0xD800 <= code_point < 0xE000]
    made = [
        "".join(choose.choice(letters if choose.random() < 0.4 else COMMON) for _ in range(choose.randrange(60)))
        for _ in range(TEXTS)
    ]
    return [*made, *(text for batch in BATCHES for text in batch)]


def main(folder: Path) -> None:
    source = describe(folder)
    tokenizer = torch_encoder.load_tokenizer(source)
    model = tokenizer_model(sentence_encoder.word_piece(source, tokenizer))
    options = ort.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    session = ort.InferenceSession(model.SerializeToString(), options)
    different, every = [], texts()
    for start in range(0, len(every), 64):
        batch = every[start : start + 64]
        ids, mask = session.run(["ids", "mask"], {"sentences": np.array(batch, np.object_)})
        for row, text in enumerate(batch):
            if ids[row, : mask[row].sum()].tolist() != tokenizer_ids(tokenizer, text):
                different.append(text)
    print(json.dumps({"compared": len(every), "different": different}))


def tokenizer_ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text).ids
    return ids


if __name__ == "__main__":
    main(Path(sys.argv[1]))
