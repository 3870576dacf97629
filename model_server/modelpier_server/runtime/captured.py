"""Runs of fixed sizes in fixed memory: what CUDA graphs need, and what spares a GPU the allocations of every run.

`OrtSession.prepare` makes them once rows are known not to know each other: a run of fewer rows than a bucket holds is
filled up with copies of its first row. One bucket per power of two, each with its buffers, its IOBinding and, on CUDA,
its graph (`gpu_graph_id`), which ONNX Runtime captures in the first runs.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from modelpier_server.contract import TensorSpec
from modelpier_server.protocol.datatypes import DATATYPES

GRAPH_ID = "gpu_graph_id"
EAGER = "-1"
"""Of GRAPH_ID: neither captured nor replayed."""
_WARM_RUNS = 3
"""ONNX Runtime runs a graph twice before it captures it."""
_NO_FIXED_SIZE = {"BYTES", "BF16"}

Arrays = Mapping[str, npt.NDArray[Any]]


def objection(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    """Why a model's runs cannot have fixed sizes; empty if they can."""
    for spec in (*inputs, *outputs):
        if spec.datatype in _NO_FIXED_SIZE:
            return f"'{spec.name}' is {spec.datatype}"
        if not spec.shape or spec.shape[0] != -1 or -1 in spec.shape[1:]:
            return f"'{spec.name}' has other variable sizes than its rows"
    return ""


def sizes(most: int) -> tuple[int, ...]:
    """Rows of the buckets: powers of two, and `most`."""
    return (*(1 << power for power in range(most.bit_length()) if 1 << power < most), most)


@dataclass(frozen=True)
class Buffer:
    """Fixed memory of one input or output. On a CPU `host` is the memory of `value`; on other devices it is copied."""

    host: npt.NDArray[Any]
    value: ort.OrtValue


@dataclass(frozen=True)
class Bucket:
    rows: int
    inputs: Mapping[str, Buffer]
    outputs: Mapping[str, Buffer]
    binding: ort.IOBinding
    options: ort.RunOptions


class Captured:
    """Buckets of one session. `run` may be called by several threads; one at a time gets the buffers."""

    def __init__(self, session: ort.InferenceSession, specs: tuple[Sequence[TensorSpec], Sequence[TensorSpec]]) -> None:
        self._session = session
        self._inputs, self._outputs = specs
        self._device = "cuda" if session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
        self._buckets: list[Bucket] = []
        self._lock = threading.Lock()

    def prepare(self, most: int) -> None:
        """Blocking: makes and runs the buckets for up to `most` rows."""
        for number, rows in enumerate(sizes(most), start=1):  # id 0 is ONNX Runtime's own
            bucket = self._bucket(rows, number)
            for _ in range(_WARM_RUNS):
                self._session.run_with_iobinding(bucket.binding, bucket.options)
            self._buckets.append(bucket)

    def run(self, feeds: Arrays, outputs: Sequence[str]) -> list[npt.NDArray[Any]] | None:
        """None where no bucket fits or the buffers are in use: the caller then runs as it would without them."""
        rows = len(next(iter(feeds.values())))
        bucket = next((bucket for bucket in self._buckets if bucket.rows >= rows > 0), None)
        if bucket is None or any(len(array) != rows for array in feeds.values()):
            return None
        if not self._lock.acquire(blocking=False):
            return None
        try:
            for name, buffer in bucket.inputs.items():
                self._fill(buffer, feeds[name])
            self._session.run_with_iobinding(bucket.binding, bucket.options)
            return [self._read(bucket.outputs[name])[:rows] for name in outputs]
        finally:
            self._lock.release()

    def _bucket(self, rows: int, number: int) -> Bucket:
        binding, options = self._session.io_binding(), ort.RunOptions()
        if self._device == "cuda":
            options.add_run_config_entry(GRAPH_ID, str(number))
        inputs = {spec.name: self._buffer(spec, rows) for spec in self._inputs}
        outputs = {spec.name: self._buffer(spec, rows) for spec in self._outputs}
        for name, buffer in inputs.items():
            binding.bind_ortvalue_input(name, buffer.value)
        for name, buffer in outputs.items():
            binding.bind_ortvalue_output(name, buffer.value)
        return Bucket(rows, inputs, outputs, binding, options)

    def _buffer(self, spec: TensorSpec, rows: int) -> Buffer:
        host = np.zeros((rows, *spec.shape[1:]), DATATYPES[spec.datatype].numpy)
        return Buffer(host, ort.OrtValue.ortvalue_from_numpy(host, self._device))

    def _fill(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        buffer.host[: len(array)] = array
        buffer.host[len(array) :] = array[:1]
        if self._device != "cpu":
            buffer.value.update_inplace(buffer.host)

    def _read(self, buffer: Buffer) -> npt.NDArray[Any]:
        """A copy: the next run writes into the same memory."""
        if self._device == "cpu":
            return buffer.host.copy()
        array: npt.NDArray[Any] = buffer.value.numpy()
        return array
