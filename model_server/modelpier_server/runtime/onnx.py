"""Models in this process: a file or folder to an ONNX Runtime session.

`load` is called by `lifecycle` in a thread; `run` by the scheduler, on the event loop for very short models and on its
runner threads for others (ONNX Runtime releases the GIL).
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import threading
import time

# Since 1.29 ONNX Runtime reports its use to its makers unless told otherwise before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

from modelpier_server.contract import FailureReason, GraphOptimization, Options
from modelpier_server.errors import Cancelled, InferenceFailed, InvalidRequest, ModelError, OutOfMemory
from modelpier_server.runtime import captured, cuda, custom_operators, extensions, providers, tensorrt, tensors
from modelpier_server.runtime.captured import Captured
from modelpier_server.runtime.cpu import cores
from modelpier_server.runtime.graph_cache import Entry, GraphCache
from modelpier_server.runtime.session import Control, Session

_LEVELS = {
    GraphOptimization.DISABLED: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    GraphOptimization.BASIC: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    GraphOptimization.EXTENDED: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    GraphOptimization.ALL: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
log = logging.getLogger(__name__)
_BF16 = 16
"""ONNX's TensorProto.DataType.BFLOAT16."""
_ELSEWHERE = re.compile(
    r"xternal data (path|location|resolves)|external (data location|TensorProto)|Data of TensorProto"
)
_TENSOR = re.compile(r"tensor name: ([^)]+)\)|for initializer: (\S+?)\. |Tensor (\S+) external data")
_WARNINGS, _NOTHING = 2, 4
"""Severities from which on ONNX Runtime logs; 4 is what ends the process."""
_UNKNOWN_OPERATOR = "is not a registered function/op"
_TWO_OF_A_DOMAIN = "Domain already set in registry"
_MEMORY_WORDS = (
    *("failed to allocate", "bad_alloc", "bad allocation", "out of memory", "not enough memory"),
    "smaller than requested bytes",  # over gpu_mem_limit
)


def load(path: Path, options: Options, digest: str = "", graphs: GraphCache | None = None) -> Session:
    """Blocking. `path` is an .onnx file, or a folder with one (and its external data). With the digest of its bytes a
    graph may be kept in `graphs`, and used.

    Raises ModelError: MODEL_INVALID, PROVIDER_UNAVAILABLE, OUT_OF_MEMORY. External data outside of the model's folder
    is refused by ONNX Runtime itself.
    """
    providers.check(options.providers, ort.get_available_providers())
    if options.providers[0].name != providers.CPU:
        cuda.load_libraries()
    file = _model_file(path)
    instances, threads = _layout(options)
    session_options = _session_options(threads)
    session_options.graph_optimization_level = _LEVELS[options.graph_optimization]
    if extensions.wanted(file):
        session_options.register_custom_ops_library(extensions.library())
    folder = path if path.is_dir() else path.parent
    custom_operators.register(session_options, folder, options.custom_operators)
    if any(provider.name == providers.TENSORRT for provider in options.providers):
        options = _for_tensorrt(file, session_options, options, graphs.engines(digest) if graphs and digest else None)
    entry = _entry(file, options, digest, graphs)
    session = _create(file, session_options, options) if entry is None else _kept(file, session_options, options, entry)
    session.disable_fallback()
    providers.check_taken(options.providers, session.get_providers())
    return OrtSession(session, instances, threads, graphs=providers.captures(options.providers))


def _create(file: Path, session_options: ort.SessionOptions, options: Options) -> ort.InferenceSession:
    asked = [(provider.name, dict(provider.options)) for provider in options.providers]
    # Why a provider cannot be had is told by the log of the whole library alone. During runs clients could fill it.
    ort.set_default_logger_severity(_WARNINGS)
    try:
        return ort.InferenceSession(str(file), session_options, providers=asked)
    except MemoryError as error:
        raise ModelError(FailureReason.OUT_OF_MEMORY, f"{file.name}: {error}") from error
    except Exception as error:  # ONNX Runtime's exceptions have no root of their own
        raise ModelError(_reason(error), f"{file.name}: {_remedy(str(error))}{_text(error)}") from error
    finally:
        ort.set_default_logger_severity(_NOTHING)


def _remedy(text: str) -> str:
    """Before what ONNX Runtime says of what it refuses for safety's sake, or for want of a library."""
    if _ELSEWHERE.search(text):
        found = _TENSOR.search(text)
        tensor = f" of tensor '{found[1] or found[2] or found[3]}'" if found else ""
        return f"external data{tensor} must be a file within the model's folder, by a relative path: "
    if _UNKNOWN_OPERATOR in text:
        return (
            "there is no such operator here; a library that has it is loaded from the model's folder where "
            "server.customOperators (--custom-operators) names it: "
        )
    if _TWO_OF_A_DOMAIN in text:
        return (
            "two libraries bring operators of one domain; name one of them in server.customOperators "
            f"(for {extensions.DOMAIN.decode()} none: onnxruntime-extensions comes by itself): "
        )
    return ""


def _for_tensorrt(file: Path, session_options: ort.SessionOptions, options: Options, engines: Path | None) -> Options:
    """`options` with what TensorRT must know before it sees the model."""
    level = session_options.graph_optimization_level
    session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        inputs = tensors.specs(_create(file, session_options, Options()).get_inputs(), "input")
    except ModelError as error:  # a CPU need not be able to run what a GPU runs
        log.warning("the sizes of the inputs cannot be known beforehand", extra={"error": str(error)})
        inputs = ()
    finally:
        session_options.graph_optimization_level = level
    return replace(
        options,
        providers=tuple(
            tensorrt.completed(provider, inputs, options.batching.max_rows, engines)
            if provider.name == providers.TENSORRT
            else provider
            for provider in options.providers
        ),
    )


def _entry(file: Path, options: Options, digest: str, graphs: GraphCache | None) -> Entry | None:
    """None for what has no graph to keep: files beside the model may be its external data, of which a file's digest
    says nothing and to which a graph elsewhere would lose the way, or libraries of its operators; and TensorRT keeps
    its engines itself.
    """
    kept = {providers.CPU, providers.CUDA}
    if graphs is None or not digest or not kept.issuperset(p.name for p in options.providers):
        return None
    if any(other != file for other in file.parent.iterdir()):
        return None
    about = [
        ort.__version__,
        options.graph_optimization,
        *(f"{p.name} {sorted(p.options.items())}" for p in options.providers),
    ]
    return graphs.entry(digest, " ".join(about))


def _kept(file: Path, session_options: ort.SessionOptions, options: Options, entry: Entry) -> ort.InferenceSession:
    """As `_create`, with what `entry` keeps, or for it to keep."""
    start = time.perf_counter()
    if (graph := entry.kept()) is not None:
        ready = session_options.graph_optimization_level
        session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = _create(graph, session_options, options)
        except ModelError as error:
            log.warning("a kept graph cannot be loaded: the model itself is", extra={"error": str(error)})
            entry.forget()
            session_options.graph_optimization_level = ready
        else:
            entry.used(time.perf_counter() - start)
            return session
    target = entry.target(file.stat().st_size)
    if target is None:
        start = time.perf_counter()
        session = _create(file, session_options, options)
        entry.loaded(time.perf_counter() - start)
        return session
    session_options.optimized_model_filepath = str(target)
    try:
        session = _create(file, session_options, options)
    except ModelError:  # the disk is full, or the model itself is bad: without the graph it shows
        entry.abandon(target)
        session_options.optimized_model_filepath = ""
        return _create(file, session_options, options)
    entry.written(target)
    return session


def _model_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.onnx")) or sorted(path.rglob("*.onnx"))
    named = [file for file in files if file.name == "model.onnx"]
    chosen = named if len(named) == 1 else files
    if len(chosen) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise ModelError(
            FailureReason.MODEL_INVALID,
            f"the folder must hold one .onnx file, or one named model.onnx; it holds {found}",
        )
    return chosen[0]


def _layout(options: Options) -> tuple[int, int]:
    """(instances, threads of each). On CPUs one run per core beats one run over all cores: measured x1.4 for images
    and text.
    """
    if options.providers[0].name != providers.CPU:
        return options.instances or 1, options.threads or 1
    available = cores()
    if options.instances:
        return options.instances, options.threads or max(1, available // options.instances)
    threads = options.threads or 1
    return max(1, available // threads), threads


def _session_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Everything that it would print arrives as an exception too, and clients could fill the log with bad input.
    options.log_severity_level = _NOTHING
    # Threads that spin while they wait burn a core at low rates and starve everything else under a CPU limit.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


class OrtSession:
    """A model in this process."""

    on_loop = True
    lost = None

    def __init__(self, session: ort.InferenceSession, instances: int, threads: int, *, graphs: bool = False) -> None:
        """`graphs`: runs of fixed sizes are captured, all others must say that they are not to be."""
        self._session: ort.InferenceSession | None = session
        self.inputs = tensors.specs(session.get_inputs(), "input")
        self.outputs = tensors.specs(session.get_outputs(), "output")
        self.axes = {**tensors.axes(session.get_inputs()), **tensors.axes(session.get_outputs())}
        self.provider: str = session.get_providers()[0]
        self.instances = instances
        self.caller_only = threads == 1 and self.provider == providers.CPU
        self._captured: Captured | None = None
        self._graphs = graphs
        self._turn = threading.Lock()
        """Of sessions with graphs: a run beside the replay of a graph changes its results."""
        self._has_bf16 = any(spec.datatype == "BF16" for spec in (*self.inputs, *self.outputs))

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str], control: Control | None = None
    ) -> list[npt.NDArray[Any]]:
        session = self._session
        if session is None:
            raise InferenceFailed("the model is closed")
        options = None if control is None else control.handle or _abortable(control)
        try:
            if self._graphs:
                with self._turn:
                    return self._run_or_replay(session, feeds, outputs, options or ort.RunOptions())
            if self._has_bf16:
                return _run_values(session, feeds, outputs, options)
            arrays: list[npt.NDArray[Any]] = session.run(outputs, feeds, options)
        except state.InvalidArgument as error:
            raise InvalidRequest(f"the model refuses the input: {_text(error)}") from error
        except Exception as error:  # ONNX Runtime's exceptions have no root of their own
            if control is not None and control.aborted:
                raise Cancelled("the run was ended before it had a result") from error
            failed = OutOfMemory if _reason(error) is FailureReason.OUT_OF_MEMORY else InferenceFailed
            raise failed(f"the model failed: {_text(error)}") from error
        return arrays

    def _run_or_replay(
        self,
        session: ort.InferenceSession,
        feeds: Mapping[str, npt.NDArray[Any]],
        outputs: Sequence[str],
        options: ort.RunOptions,
    ) -> list[npt.NDArray[Any]]:
        if self._captured is not None and (fixed := self._captured.run(feeds, outputs)) is not None:
            return fixed
        options.add_run_config_entry(captured.GRAPH_ID, captured.EAGER)
        if self._has_bf16:
            return _run_values(session, feeds, outputs, options)
        arrays: list[npt.NDArray[Any]] = session.run(outputs, dict(feeds), options)
        return arrays

    @property
    def joins(self) -> bool:
        return self._captured is not None

    def prepare(self, most: int) -> None:
        if not self._graphs or self._session is None:
            return
        if reason := captured.objection(self.inputs, self.outputs):
            log.warning("no graphs are captured", extra={"reason": reason})
            return
        made = Captured(self._session, (self.inputs, self.outputs))
        made.prepare(most)
        self._captured = made

    def close(self) -> None:
        self._session = self._captured = None


def _abortable(control: Control) -> ort.RunOptions:
    """ONNX Runtime looks at `terminate` between any two operators, those within the body of a Loop too."""
    options = control.handle = ort.RunOptions()
    control.begin(partial(setattr, options, "terminate", True))
    return options


def _run_values(
    session: ort.InferenceSession,
    feeds: Mapping[str, npt.NDArray[Any]],
    outputs: Sequence[str],
    options: ort.RunOptions | None,
) -> list[npt.NDArray[Any]]:
    """As `InferenceSession.run`, which knows no bfloat16."""
    values = {name: _value(array) for name, array in feeds.items()}
    return [_array(value) for value in session.run_with_ort_values(outputs, values, options)]


def _value(array: npt.NDArray[Any]) -> ort.OrtValue:
    if array.dtype == ml_dtypes.bfloat16:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array).view(np.uint16), _BF16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _array(value: ort.OrtValue) -> npt.NDArray[Any]:
    if value.data_type() != "tensor(bfloat16)":
        array: npt.NDArray[Any] = value.numpy()
        return array
    # Neither numpy() nor DLPack of ONNX Runtime gives bfloat16 away: its bytes are copied while `value` lives.
    size = value.tensor_size_in_bytes()
    raw = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(raw, ml_dtypes.bfloat16).reshape(value.shape())


def _reason(error: Exception) -> FailureReason:
    text = repr(error).lower()
    return FailureReason.OUT_OF_MEMORY if any(word in text for word in _MEMORY_WORDS) else FailureReason.MODEL_INVALID


def _text(error: Exception) -> str:
    """One line of bounded length: it goes into answers, reports and termination messages."""
    return " ".join(str(error).split())[:1000]
