"""ONNX Runtime's description of inputs and outputs to the protocol's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from modelpier_server.contract import FailureReason, TensorSpec
from modelpier_server.errors import ModelError

_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}

Axes = tuple[int | str | None, ...]
"""Sizes of a shape as the model declares them: a number, a symbol, or None for an unnamed variable size."""


def specs(nodes: Iterable[Any], kind: str) -> tuple[TensorSpec, ...]:
    """Raises ModelError(MODEL_INVALID) for what no request can carry; `kind` is `input` or `output`."""
    return tuple(TensorSpec(node.name, _datatype(node, kind), tuple(map(_size, node.shape))) for node in nodes)


def axes(nodes: Iterable[Any]) -> dict[str, Axes]:
    return {node.name: tuple(node.shape) for node in nodes}


def _size(size: Any) -> int:
    return size if isinstance(size, int) and size >= 0 else -1


def _datatype(node: Any, kind: str) -> str:
    datatype = _TYPES.get(node.type)
    if datatype is None:
        raise ModelError(
            FailureReason.MODEL_INVALID,
            f"{kind} '{node.name}' is {node.type}, and only tensors of {', '.join(_TYPES.values())} can be served; "
            "classifiers of skl2onnx give tensors when they are converted with options={'zipmap': False}",
        )
    return datatype
