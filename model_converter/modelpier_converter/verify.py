"""The converted model against the original: run, not looked at.

An export that succeeds says little: ONNX Runtime may refuse the graph, or it may answer something else for other
batch sizes or lengths than those it was traced with.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import onnxruntime_extensions

from modelpier_converter.errors import VerificationError

Embeddings = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Embeddings]
TOLERANCE = 1e-5
"""Of the largest number of the original's answer. Sums in another order differ by a few 1e-7."""


@dataclass(frozen=True)
class Comparison:
    sentences: int
    largest_difference: float
    relative_error: float
    """Largest difference by the largest number of the original's answer."""


def open_model(path: Path) -> Embed:
    """Raises VerificationError when ONNX Runtime refuses the file."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no root of their own
        raise VerificationError(f"ONNX Runtime refuses the converted model: {error}") from error
    (given,) = session.get_inputs()

    def embed(sentences: Sequence[str]) -> Embeddings:
        (answer,) = session.run(None, {given.name: np.array(sentences, np.object_)})
        found: Embeddings = answer
        return found

    return embed


def compare(converted: Embed, original: Embed, batches: Sequence[Sequence[str]]) -> Comparison:
    """Raises VerificationError naming the first batch of which the answers differ by more than TOLERANCE."""
    largest = relative = 0.0
    for batch in batches:
        expected, answer = original(batch), converted(batch)
        if answer.shape != expected.shape:
            raise VerificationError(f"{_name(batch)}: shape {answer.shape} instead of {expected.shape}")
        difference = float(np.abs(answer - expected).max())
        error = difference / float(np.abs(expected).max())
        if not error <= TOLERANCE:  # not a number is wrong, too
            raise VerificationError(f"{_name(batch)}: a relative error of {error:.1e}; at most {TOLERANCE:g} is right")
        largest, relative = max(largest, difference), max(relative, error)
    return Comparison(sum(map(len, batches)), largest, relative)


def _name(batch: Sequence[str]) -> str:
    return "the converted model differs from the original for " + ", ".join(repr(text[:40]) for text in batch)
