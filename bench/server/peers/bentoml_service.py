"""BentoML: a service with its adaptive batching. Several inputs come stacked on the second axis."""

from typing import Annotated

import bentoml
import numpy as np

from bench.server.peers.session import INPUTS, MODEL, load

SPECS = INPUTS[MODEL]
((DTYPE, SHAPE), *_) = SPECS.values()
STACKED = (-1, len(SPECS), *SHAPE) if len(SPECS) > 1 else (-1, *SHAPE)
Given = Annotated[np.ndarray, bentoml.validators.DType(np.dtype(DTYPE).name), bentoml.validators.Shape(STACKED)]


@bentoml.service(workers=1, traffic={"timeout": 60})
class OnnxService:
    def __init__(self) -> None:
        self._session = load()

    @bentoml.api(batchable=True, max_batch_size=32)
    def infer(self, x: Given) -> np.ndarray:
        arrays = [x[:, number] for number in range(len(SPECS))] if len(SPECS) > 1 else [x]
        feeds = {name: np.ascontiguousarray(values) for name, values in zip(SPECS, arrays, strict=True)}
        return self._session.run(None, feeds)[0]
