"""Runs of fixed sizes in fixed memory: what CUDA graphs need, and what spares a GPU the allocations of every run.

`OrtSession.prepare` makes them once rows are known not to know each other: a run of fewer rows than a bucket holds is
filled up with copies of its first row. One bucket per power of two, each with its buffers, its IOBinding and, on CUDA,
its graph (`gpu_graph_id`), which ONNX Runtime captures in the first runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from modelpier_server.contract import TensorSpec
from modelpier_server.errors import InferenceFailed
from modelpier_server.protocol.datatypes import DATATYPES
from modelpier_server.runtime import cuda, providers
from modelpier_server.runtime.session import Joined

GRAPH_ID = "gpu_graph_id"
EAGER = "-1"
"""Of GRAPH_ID: neither captured nor replayed."""
_WARM_RUNS = 3
"""ONNX Runtime runs a graph twice before it captures it."""
_DIRECT = 1 << 20
"""Bytes from which on a copy through the driver's buffer takes less time than one to page-locked memory and another one
from there: measured on an H200."""
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
    """Fixed memory of one input or output."""

    host: npt.NDArray[Any]
    """What this process reads and writes. On a CPU it is the memory of `value`."""
    value: ort.OrtValue
    """What the model reads or writes."""
    pinned: ort.OrtValue | None = None
    """The memory of `host` where a GPU fetches it by itself (page-locked): three times as fast as other memory, which
    goes through a buffer of the driver's."""


@dataclass(frozen=True)
class Bucket:
    rows: int
    inputs: Mapping[str, Buffer]
    outputs: Mapping[str, Buffer]
    binding: ort.IOBinding
    options: ort.RunOptions


class Captured:
    """Buckets of one session. One run at a time: the caller sees to it."""

    def __init__(self, session: ort.InferenceSession, specs: tuple[Sequence[TensorSpec], Sequence[TensorSpec]]) -> None:
        self._session = session
        self._inputs, self._outputs = specs
        self._cuda = session.get_providers()[0] == providers.CUDA
        self._number = int(session.get_provider_options().get(providers.CUDA, {}).get("device_id", 0))
        self._pinned = cuda.pinned_memory(self._number) if self._cuda else None
        self._buckets: list[Bucket] = []

    def prepare(self, most: int) -> None:
        """Blocking: makes and runs the buckets for up to `most` rows."""
        for number, rows in enumerate(sizes(most), start=1):  # id 0 is ONNX Runtime's own
            bucket = self._bucket(rows, number)
            for _ in range(_WARM_RUNS):
                self._session.run_with_iobinding(bucket.binding, bucket.options)
            self._buckets.append(bucket)

    def run(self, feeds: Arrays, outputs: Sequence[str]) -> list[npt.NDArray[Any]] | None:
        """None where no bucket fits: the caller then runs as it would without them."""
        parts = feeds.parts if isinstance(feeds, Joined) else {name: [array] for name, array in feeds.items()}
        rows = {sum(map(len, part)) for part in parts.values()}
        most = max(rows)
        bucket = next((bucket for bucket in self._buckets if bucket.rows >= most > 0), None)
        if bucket is None or len(rows) > 1:
            return None
        for name, buffer in bucket.inputs.items():
            self._fill(buffer, parts[name])
        self._session.run_with_iobinding(bucket.binding, bucket.options)
        return [self._read(bucket.outputs[name], most) for name in outputs]

    def replay(self) -> None:
        """Runs the largest bucket with whatever is in its memory: what is left of a run without its copies."""
        bucket = self._buckets[-1]
        self._session.run_with_iobinding(bucket.binding, bucket.options)

    def _bucket(self, rows: int, number: int) -> Bucket:
        binding, options = self._session.io_binding(), ort.RunOptions()
        if self._cuda:
            options.add_run_config_entry(GRAPH_ID, str(number))
        inputs = {spec.name: self._buffer(spec, rows) for spec in self._inputs}
        outputs = {spec.name: self._buffer(spec, rows) for spec in self._outputs}
        for name, buffer in inputs.items():
            binding.bind_ortvalue_input(name, buffer.value)
        for name, buffer in outputs.items():
            binding.bind_ortvalue_output(name, buffer.value)
        return Bucket(rows, inputs, outputs, binding, options)

    def _buffer(self, spec: TensorSpec, rows: int) -> Buffer:
        shape, kind = (rows, *spec.shape[1:]), DATATYPES[spec.datatype].numpy
        if self._pinned is None:
            host = np.zeros(shape, kind)
            return Buffer(host, ort.OrtValue.ortvalue_from_numpy(host, "cuda" if self._cuda else "cpu", self._number))
        pinned = ort.OrtValue.ortvalue_from_shape_and_type(shape, kind, memory_info=self._pinned)
        host = pinned.numpy()
        if host.ctypes.data != pinned.data_ptr():
            raise InferenceFailed("ONNX Runtime copies what is page-locked: it is of another version than was tested")
        host[...] = 0
        return Buffer(host, ort.OrtValue.ortvalue_from_numpy(host, "cuda", self._number), pinned)

    def _fill(self, buffer: Buffer, parts: Sequence[npt.NDArray[Any]]) -> None:
        if self._cuda and len(parts) == 1 and len(parts[0]) == len(buffer.host) and parts[0].nbytes > _DIRECT:
            buffer.value.update_inplace(parts[0])
            return
        rows = 0
        for part in parts:
            buffer.host[rows : rows + len(part)] = part
            rows += len(part)
        buffer.host[rows:] = buffer.host[:1]
        if buffer.pinned is not None:
            ort.copy_tensors([buffer.pinned], [buffer.value])
        elif self._cuda:
            buffer.value.update_inplace(buffer.host)

    def _read(self, buffer: Buffer, rows: int) -> npt.NDArray[Any]:
        """A copy: the next run writes into the same memory."""
        if buffer.pinned is not None:
            ort.copy_tensors([buffer.value], [buffer.pinned])
        elif self._cuda:
            array: npt.NDArray[Any] = buffer.value.numpy()
            return array[:rows]
        return buffer.host[:rows].copy()
