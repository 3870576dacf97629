"""The inputs of the models (models.py), made with fixed seeds. Apart from them, because this needs no `onnx`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FEATURES = 32
PIXELS = (3, 224, 224)
NUMBERS = 172_000
"""1.6 MB as JSON."""
TOKENS = 128
LARGE = 2290


def feeds(model: str, variant: int = 0, rows: int = 1) -> dict[str, npt.NDArray[Any]]:
    """Inputs of a model; for each variant the same every time."""
    random = np.random.default_rng(7 + variant)
    if model == "text":
        ids = random.integers(1000, 30000, (rows, TOKENS), dtype=np.int64)
        return {"input_ids": ids, "attention_mask": np.ones((rows, TOKENS), np.int64)}
    shape = {"tabular": (FEATURES,), "image": PIXELS, "wide": (NUMBERS,), "large": (LARGE,)}[model]
    # Six digits, as clients round that write JSON.
    return {"x": np.round(random.normal(0, 1, (rows, *shape)), 6).astype(np.float32)}
