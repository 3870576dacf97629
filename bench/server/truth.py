"""What the right answers are: ONNX Runtime's own, in this process. Samples of all answers are held against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bench.server.client.load import Sample
from bench.server.feeds import feeds as inputs
from bench.server.wires import Answer, Wire

VARIANTS = 4
"""Different inputs for each model, so that an answer that went to another request is seen."""
TOLERANCE = 1e-3
"""Six digits in JSON, and sums in another order."""


class Truth:
    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    @cache  # noqa: B019 - one of these lives as long as the program
    def feeds(self, model: str) -> list[Mapping[str, npt.NDArray[Any]]]:
        return [inputs(model, variant) for variant in range(VARIANTS)]

    @cache  # noqa: B019
    def _answers(self, model: str) -> list[Answer]:
        session = ort.InferenceSession(self._files[model], providers=["CPUExecutionProvider"])
        return [session.run(None, dict(feeds))[0].ravel() for feeds in self.feeds(model)]

    def agrees(self, model: str, variant: int, wire: Wire, body: bytes) -> bool:
        """Whether an answer is the one to this variant."""
        try:
            found = wire.decode(body)
        except (ValueError, KeyError, TypeError, IndexError):
            return False
        expected = self._answers(model)[variant]
        return found.shape == expected.shape and bool(np.allclose(found, expected, TOLERANCE, TOLERANCE))

    def wrong(self, model: str, wire: Wire, samples: Sequence[Sample]) -> int:
        return sum(not self.agrees(model, sample.variant, wire, sample.body) for sample in samples)
