"""PyTriton: Triton's core with its Python backend."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from bench.server.peers.session import INPUTS, MODEL, OUTPUT, PORT, load

session = load()
CONFIG = TritonConfig(
    http_port=PORT,
    grpc_port=int(os.environ["BENCH_GRPC_PORT"]),
    metrics_port=int(os.environ["BENCH_METRICS_PORT"]),
    log_verbose=0,
)


@batch
def infer(**feeds: Any) -> list[Any]:
    return [session.run(None, feeds)[0]]


def main() -> None:
    name, size = OUTPUT[MODEL]
    with Triton(config=CONFIG) as triton:
        triton.bind(
            model_name=MODEL,
            infer_func=infer,
            inputs=[Tensor(name=key, dtype=dtype, shape=shape) for key, (dtype, shape) in INPUTS[MODEL].items()],
            outputs=[Tensor(name=name, dtype=np.float32, shape=(size,))],
            config=ModelConfig(max_batch_size=32, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
            strict=False,
        )
        triton.serve()


if __name__ == "__main__":
    main()
