"""The session that every peer uses: the same options for all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

MODEL = os.environ["BENCH_MODEL"]
PORT = int(os.environ["BENCH_PORT"])
DATATYPES: dict[str, type[np.generic]] = {"FP32": np.float32, "INT64": np.int64}
INPUTS: Mapping[str, Mapping[str, tuple[type[np.generic], tuple[int, ...]]]] = {
    "tabular": {"x": (np.float32, (32,))},
    "image": {"x": (np.float32, (3, 224, 224))},
    "text": {"input_ids": (np.int64, (128,)), "attention_mask": (np.int64, (128,))},
}
OUTPUT = {"tabular": ("y", 4), "image": ("y", 1000), "text": ("embedding", 384)}


def load() -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(os.environ["BENCH_FILE"], options, providers=["CPUExecutionProvider"])


def array_of(tensor: Mapping[str, Any], *, without_batch: bool = False) -> npt.NDArray[Any]:
    """Of a tensor of the Open Inference Protocol's JSON."""
    shape = tensor["shape"][1:] if without_batch else tensor["shape"]
    return np.array(tensor["data"], DATATYPES[tensor["datatype"]]).reshape(shape)


def answer(values: npt.NDArray[Any]) -> dict[str, Any]:
    """As the Open Inference Protocol's JSON."""
    data = values.ravel().tolist()
    tensor = {"name": OUTPUT[MODEL][0], "datatype": "FP32", "shape": list(values.shape), "data": data}
    return {"model_name": MODEL, "outputs": [tensor]}
