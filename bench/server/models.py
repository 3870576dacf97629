"""The models of the contest, made on the spot with fixed seeds: what counts is their shape, nobody needs their answers.

`tabular` is an MLP 32-64-64-4, `image` has the layers of MobileNetV2 (3 x 224 x 224 to 1000), `text` those of MiniLM
(6 layers, 384 wide, 12 heads, 128 tokens), `wide` 1.6 MB of JSON and next to no work, `large` 100 MB of
weights. The first axis is the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.server.feeds import FEATURES, LARGE, NUMBERS, PIXELS, TOKENS

CLASSES = 4
WORDS, WIDE, HEADS, LAYERS, FEED = 30522, 384, 12, 6, 1536
LARGE_LAYERS = 5
"""Square ones of FP32: 105 MB together."""
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""MobileNetV2's table 2: expansion, channels, repetitions, stride of the first."""


class Graph:
    """Nodes and weights in the order in which they are added; each method returns the name of its result."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[Any] = []
        self._weights: list[TensorProto] = []

    def constant(self, values: npt.NDArray[Any] | np.generic) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weight(self, *shape: int, fan: int) -> str:
        return self.constant(self._random.normal(0, fan**-0.5, shape).astype(np.float32))

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def dense(self, x: str, given: int, made: int, output: str = "") -> str:
        product = self.op("MatMul", x, self.weight(given, made, fan=given))
        return self.op("Add", product, self.weight(made, fan=100), output=output)

    def model(self, inputs: Mapping[str, tuple[int, tuple[int, ...]]], output: str, shape: tuple[int, ...]) -> bytes:
        """`inputs`: element type and shape without the batch."""
        given = [helper.make_tensor_value_info(n, kind, ("batch", *dims)) for n, (kind, dims) in inputs.items()]
        answered = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ("batch", *shape))]
        graph = helper.make_graph(self._nodes, "bench", given, answered, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        raw: bytes = model.SerializeToString()
        return raw


def tabular() -> bytes:
    graph = Graph(1)
    first = graph.op("Relu", graph.dense("x", FEATURES, 64))
    second = graph.op("Relu", graph.dense(first, 64, 64))
    graph.dense(second, 64, CLASSES, output="y")
    return graph.model({"x": (TensorProto.FLOAT, (FEATURES,))}, "y", (CLASSES,))


def image() -> bytes:
    graph = Graph(2)
    x, channels = _convolution(graph, "x", 3, 32, 3, stride=2), 32
    for expansion, wide, count, stride in STAGES:
        for index in range(count):
            x = _bottleneck(graph, x, channels, wide, stride=1 if index else stride, expansion=expansion)
            channels = wide
    x = _convolution(graph, x, channels, 1280, 1)
    graph.dense(graph.op("ReduceMean", x, axes=[2, 3], keepdims=0), 1280, 1000, output="y")
    return graph.model({"x": (TensorProto.FLOAT, PIXELS)}, "y", (1000,))


def _convolution(
    graph: Graph, x: str, given: int, made: int, size: int, *, stride: int = 1, group: int = 1, clipped: bool = True
) -> str:
    """As it is once its normalisation has been folded into it; clipped to 0..6."""
    fan = given // group * size * size
    weights = graph.weight(made, given // group, size, size, fan=fan)
    pads = [(size - 1) // 2] * 4
    out = graph.op(
        *("Conv", x, weights, graph.weight(made, fan=100)),
        kernel_shape=[size, size],
        strides=[stride, stride],
        pads=pads,
        group=group,
    )
    if not clipped:
        return out
    return graph.op("Clip", out, graph.constant(np.float32(0)), graph.constant(np.float32(6)))


def _bottleneck(graph: Graph, x: str, given: int, made: int, *, stride: int, expansion: int) -> str:
    hidden = given * expansion
    out = _convolution(graph, x, given, hidden, 1) if expansion > 1 else x
    out = _convolution(graph, out, hidden, hidden, 3, stride=stride, group=hidden)
    out = _convolution(graph, out, hidden, made, 1, clipped=False)
    return graph.op("Add", x, out) if stride == 1 and given == made else out


def text() -> bytes:
    graph = Graph(3)
    words = graph.op("Gather", graph.weight(WORDS, WIDE, fan=1), "input_ids")
    x = _normalised(graph, graph.op("Add", words, graph.weight(TOKENS, WIDE, fan=1)))
    mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    hidden = graph.op("Sub", graph.constant(np.float32(1)), mask)
    bias = graph.op("Mul", _unsqueezed(graph, hidden, 1, 2), graph.constant(np.float32(-1e4)))
    for _ in range(LAYERS):
        x = _normalised(graph, graph.op("Add", x, _attention(graph, x, bias)))
        inner = _gelu(graph, graph.dense(x, WIDE, FEED))
        x = _normalised(graph, graph.op("Add", x, graph.dense(inner, FEED, WIDE)))
    weighted = graph.op("Mul", x, _unsqueezed(graph, mask, 2))
    axes = graph.constant(np.array([1], np.int64))
    total = graph.op("ReduceSum", weighted, axes, keepdims=0)
    graph.op("Div", total, graph.op("ReduceSum", mask, axes, keepdims=1), output="embedding")
    inputs = dict.fromkeys(("input_ids", "attention_mask"), (TensorProto.INT64, (TOKENS,)))
    return graph.model(inputs, "embedding", (WIDE,))


def _attention(graph: Graph, x: str, bias: str) -> str:
    heads = graph.constant(np.array([0, TOKENS, HEADS, WIDE // HEADS], np.int64))

    def split() -> str:
        return graph.op("Transpose", graph.op("Reshape", graph.dense(x, WIDE, WIDE), heads), perm=[0, 2, 1, 3])

    query, key, value = split(), split(), split()
    scores = graph.op("MatMul", query, graph.op("Transpose", key, perm=[0, 1, 3, 2]))
    scaled = graph.op("Mul", scores, graph.constant(np.float32((WIDE // HEADS) ** -0.5)))
    mixed = graph.op("MatMul", graph.op("Softmax", graph.op("Add", scaled, bias), axis=-1), value)
    joined = graph.op("Transpose", mixed, perm=[0, 2, 1, 3])
    flat = graph.op("Reshape", joined, graph.constant(np.array([0, TOKENS, WIDE], np.int64)))
    return graph.dense(flat, WIDE, WIDE)


def _normalised(graph: Graph, x: str) -> str:
    ones, zeros = graph.constant(np.ones(WIDE, np.float32)), graph.constant(np.zeros(WIDE, np.float32))
    return graph.op("LayerNormalization", x, ones, zeros, axis=-1)


def _gelu(graph: Graph, x: str) -> str:
    inner = graph.op("Erf", graph.op("Div", x, graph.constant(np.float32(2**0.5))))
    product = graph.op("Mul", x, graph.op("Add", inner, graph.constant(np.float32(1))))
    return graph.op("Mul", product, graph.constant(np.float32(0.5)))


def _unsqueezed(graph: Graph, x: str, *axes: int) -> str:
    return graph.op("Unsqueeze", x, graph.constant(np.array(axes, np.int64)))


def large() -> bytes:
    graph = Graph(4)
    x = "x"
    for index in range(LARGE_LAYERS):
        x = graph.dense(x, LARGE, LARGE, output="y" if index == LARGE_LAYERS - 1 else "")
    return graph.model({"x": (TensorProto.FLOAT, (LARGE,))}, "y", (LARGE,))


def wide() -> bytes:
    """Next to no work: what is left is to read the numbers."""
    graph = Graph(5)
    graph.op("ReduceMean", "x", axes=[1], keepdims=1, output="y")
    return graph.model({"x": (TensorProto.FLOAT, (NUMBERS,))}, "y", (1,))


MAKERS: dict[str, Callable[[], bytes]] = {
    "tabular": tabular,
    "image": image,
    "text": text,
    "wide": wide,
    "large": large,
}


def write(model: str, folder: Path) -> Path:
    """The model's file below `folder`, made if it is not there."""
    path = folder / model / "model.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = MAKERS[model]()
        onnx.checker.check_model(raw)
        path.write_bytes(raw)
    return path
