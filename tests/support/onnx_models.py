"""Small ONNX models for tests, made on the spot.

Each function returns the serialised model; `write` puts one into a file. Used by the tests of the server and by
whoever needs a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 9

ELEMENT_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}

Shape = Sequence[int | str | None]
Tensor = tuple[str, str, Shape]
"""Name, datatype of the protocol, shape."""


def write(model: bytes, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model)
    return path


def build(
    nodes: Sequence[NodeProto],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    weights: Sequence[TensorProto] = (),
) -> bytes:
    """A model of these nodes."""
    return bytes(build_proto(nodes, inputs, outputs, weights).SerializeToString())


def build_proto(
    nodes: Sequence[NodeProto], inputs: Sequence[Tensor], outputs: Sequence[Tensor], weights: Sequence[TensorProto] = ()
) -> ModelProto:
    graph = helper.make_graph(nodes, "test", _infos(inputs), _infos(outputs), list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _infos(tensors: Sequence[Tensor]) -> list[ValueInfoProto]:
    return [helper.make_tensor_value_info(name, ELEMENT_TYPES[datatype], shape) for name, datatype, shape in tensors]


def tokens() -> bytes:
    """y = ids of x's words, by an operator of a domain that servers do not have unasked: [CLS] 1, [SEP] 2, pier 3."""
    domain, vocabulary = "com.microsoft.extensions", "[UNK]\n[CLS]\n[SEP]\npier\n[PAD]\n[MASK]\n"
    node = helper.make_node(
        "BertTokenizer", ["x"], ["y", "types", "mask"], domain=domain, vocab_file=vocabulary, name="tokens"
    )
    model = build_proto([node], [("x", "BYTES", ("n",))], [("y", "INT64", ("t",))])
    model.opset_import.append(helper.make_opsetid(domain, 1))
    return bytes(model.SerializeToString())


def identity(datatype: str = "FP32", shape: Shape = ("n", 3)) -> bytes:
    """y = x."""
    return build([helper.make_node("Identity", ["x"], ["y"])], [("x", datatype, shape)], [("y", datatype, shape)])


def build_named_input(name: str) -> bytes:
    """y = the input of that name, which may hold anything."""
    return build([helper.make_node("Identity", [name], ["y"])], [(name, "FP32", ("n", 3))], [("y", "FP32", ("n", 3))])


def add(datatype: str = "FP32", shape: Shape = ("n", 3)) -> bytes:
    """sum = a + b, difference = a - b."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    inputs = [("a", datatype, shape), ("b", datatype, shape)]
    return build(nodes, inputs, [("sum", datatype, shape), ("difference", datatype, shape)])


def many_inputs(count: int) -> bytes:
    """y = x0 + x1 + ..."""
    names = [f"x{index}" for index in range(count)]
    inputs: list[Tensor] = [(name, "FP32", ("n", 3)) for name in names]
    return build([helper.make_node("Sum", names, ["y"])], inputs, [("y", "FP32", ("n", 3))])


def mlp(sizes: Sequence[int] = (32, 64, 64, 4), seed: int = 0) -> bytes:
    """x [n, sizes[0]] -> y [n, sizes[-1]], rectified in between: a tabular model of everyday size."""
    random = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for index, (rows, columns) in enumerate(pairwise(sizes)):
        final = index == len(sizes) - 2
        weights.append(numpy_helper.from_array(random.normal(0, 0.3, (rows, columns)).astype(np.float32), f"w{index}"))
        weights.append(numpy_helper.from_array(random.normal(0, 0.1, columns).astype(np.float32), f"b{index}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{index}", f"b{index}"], ["y" if final else f"h{index}"]))
        if not final:
            nodes.append(helper.make_node("Relu", [f"h{index}"], [f"r{index}"]))
        last = f"r{index}"
    return build(nodes, [("x", "FP32", ("n", sizes[0]))], [("y", "FP32", ("n", sizes[-1]))], weights)


def cumsum_rows() -> bytes:
    """y[i] = x[0] + ... + x[i]: rows know of each other, so that it must never be batched."""
    axis = numpy_helper.from_array(np.array(0, np.int64), "axis")
    node = helper.make_node("CumSum", ["x", "axis"], ["y"])
    return build([node], [("x", "FP32", ("n", 3))], [("y", "FP32", ("n", 3))], [axis])


def mean_of_all() -> bytes:
    """One number for all rows: the output has no batch axis."""
    node = helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0)
    return build([node], [("x", "FP32", ("n", 3))], [("y", "FP32", ())])


def gather(rows: int = 10) -> bytes:
    """y = table[ids]: fails at run time for an id that is not in the table, as embeddings do."""
    table = numpy_helper.from_array(np.arange(rows * 2, dtype=np.float32).reshape(rows, 2), "table")
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    return build([node], [("ids", "INT64", ("n", 1))], [("y", "FP32", ("n", 1, 2))], [table])


def reshape_poison() -> bytes:
    """Fails, with no word of the caller's fault, for every batch in which a row holds a `k` other than 3 (x reshaped
    to [n, k]).
    """
    node_max = helper.make_node("ReduceMax", ["k"], ["m"], keepdims=0)
    minus = numpy_helper.from_array(np.array([-1], np.int64), "minus")
    axes = numpy_helper.from_array(np.array([0], np.int64), "axes")
    nodes = [
        node_max,
        helper.make_node("Unsqueeze", ["m", "axes"], ["m1"]),
        helper.make_node("Concat", ["minus", "m1"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    inputs: list[Tensor] = [("x", "FP32", ("n", 3)), ("k", "INT64", ("n",))]
    return build(nodes, inputs, [("y", "FP32", ("n", 3))], [minus, axes])


def reciprocal() -> bytes:
    """y = 1 / x: infinity for 0."""
    node = helper.make_node("Reciprocal", ["x"], ["y"])
    return build([node], [("x", "FP32", ("n", 3))], [("y", "FP32", ("n", 3))])


def variable_length() -> bytes:
    """ids [batch, length] -> y [batch, length] doubled: requests of different lengths cannot share a run."""
    two = numpy_helper.from_array(np.array(2, np.int64), "two")
    node = helper.make_node("Mul", ["ids", "two"], ["y"])
    return build([node], [("ids", "INT64", ("batch", "length"))], [("y", "INT64", ("batch", "length"))], [two])


def slow(size: int = 512, layers: int = 12) -> bytes:
    """x [n, size] -> y [n, size]: takes milliseconds, so that it runs on threads."""
    random = np.random.default_rng(1)
    weight = numpy_helper.from_array((random.normal(0, 1, (size, size)) / size**0.5).astype(np.float32), "w")
    names = ["x", *(f"h{i}" for i in range(layers - 1)), "y"]
    nodes = [helper.make_node("MatMul", [names[i], "w"], [names[i + 1]]) for i in range(layers)]
    return build(nodes, [("x", "FP32", ("n", size))], [("y", "FP32", ("n", size))], [weight])


def encoder(*, honours_mask: bool = True, pooled: bool = True, square: bool = False) -> bytes:
    """ids, mask [n, length] -> tokens [n, length, 2], and, if `pooled`, their mean over what the mask counts (over all
    without `honours_mask`); if `square`, also pairs [n, length, length].
    """
    table = numpy_helper.from_array(np.arange(20, dtype=np.float32).reshape(10, 2), "table")
    axes = [numpy_helper.from_array(np.array([axis], np.int64), f"axis{axis}") for axis in (1, 2)]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["tokens"]),
        helper.make_node("Cast", ["mask"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weights", "axis2"], ["column"]),
    ]
    outputs: list[Tensor] = [("tokens", "FP32", ("n", "length", 2))]
    if pooled:
        outputs.append(("pooled", "FP32", ("n", 2)))
        counted = "mask" if honours_mask else "ones"
        nodes += [
            helper.make_node("Mul", ["tokens", "column"], ["masked"]),
            helper.make_node("ReduceSum", ["masked", "axis1"], ["sum"], keepdims=0),
            helper.make_node("ReduceSum", ["weights", "axis1"], ["of_mask"], keepdims=1),
            helper.make_node("Shape", ["ids"], ["shape"], start=1),
            helper.make_node("Cast", ["shape"], ["of_ones"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["sum", f"of_{counted}"], ["pooled"]),
        ]
    if square:
        outputs.append(("pairs", "FP32", ("n", "length", "length")))
        nodes += [
            helper.make_node("Unsqueeze", ["weights", "axis1"], ["row"]),
            helper.make_node("MatMul", ["column", "row"], ["pairs"]),
        ]
    inputs: list[Tensor] = [("ids", "INT64", ("n", "length")), ("mask", "INT64", ("n", "length"))]
    return build(nodes, inputs, outputs, [table, *axes])


def ranges() -> bytes:
    """k [n, 1] -> y [n, max of k]: an output whose size follows from the values."""
    zero, one = (numpy_helper.from_array(np.array(v, np.int64), f"c{v}") for v in (0, 1))
    nodes = [
        helper.make_node("ReduceMax", ["k"], ["m"], keepdims=0),
        helper.make_node("Range", ["c0", "m", "c1"], ["r"]),
        helper.make_node("Add", ["k", "r"], ["y"]),
    ]
    return build(nodes, [("k", "INT64", ("n", 1))], [("y", "INT64", ("n", "m"))], [zero, one])


def counting() -> bytes:
    """y = x + k, counted up one by one in a Loop: a run takes as long as `k` says, for ever if it is large."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["v", "one"], ["v_next"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_next", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["k"], ["rounds"], keepdims=0),
        helper.make_node("Loop", ["rounds", "true", "x"], ["y"], body=body),
    ]
    weights = [numpy_helper.from_array(np.array(1, np.float32), "one"), numpy_helper.from_array(np.array(True), "true")]
    return build(nodes, [("x", "FP32", ("n", 3)), ("k", "INT64", ("n",))], [("y", "FP32", ("n", 3))], weights)


def endless() -> bytes:
    """y = x, after a Loop that no warm-up outlives."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["v", "one"], ["v_next"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_next", TensorProto.FLOAT, None),
        ],
    )
    node = helper.make_node("Loop", ["rounds", "true", "x"], ["y"], body=body)
    weights = [
        numpy_helper.from_array(np.array(1, np.float32), "one"),
        numpy_helper.from_array(np.array(True), "true"),
        numpy_helper.from_array(np.array(1 << 62, np.int64), "rounds"),
    ]
    return build([node], [("x", "FP32", ("n", 3))], [("y", "FP32", ("n", 3))], weights)


def sequence_output() -> bytes:
    """An output that is no tensor, as classifiers have that were converted with a ZipMap."""
    node = helper.make_node("SequenceConstruct", ["x"], ["y"])
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3))],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(model.SerializeToString())


def external(path: Path, location: str, data: bytes) -> Path:
    """y = x + w [3], with w in the file `location` (relative to the model's folder, or absolute)."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="length", value=str(len(data)))
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    return write(build(nodes, [("x", "FP32", ("n", 3))], [("y", "FP32", ("n", 3))], [weight]), path)


def external_in(place: str, path: Path, location: str, size: int) -> Path:
    """y = x + w [3] as `external`, w being in an initializer, an attribute, a branch, a branch's attribute, a function,
    or sparse: `place` says which.
    """
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="length", value=str(size))
    constant, add = helper.make_node("Constant", [], ["w"], value=weight), helper.make_node("Add", ["x", "w"], ["y"])
    of_x: list[Tensor] = [("x", "FP32", ("n", 3))]
    of_y: list[Tensor] = [("y", "FP32", ("n", 3))]
    weights: list[TensorProto] = [weight] if place == "initializer" else []
    nodes = [constant, add] if place == "attribute" else [add]
    if place.startswith("branch"):
        within = {"branch": ([], [weight]), "branch's attribute": ([constant], [])}[place]
        nodes, weights = _branches(*within)
    elif place == "function":
        nodes = [helper.make_node("F", ["x"], ["y"], domain="local")]
    model = build_proto(nodes, of_x, of_y, weights)
    if place == "function":
        version = [helper.make_opsetid("", OPSET)]
        model.functions.append(helper.make_function("local", "F", ["x"], ["y"], [constant, add], version))
        model.opset_import.append(helper.make_opsetid("local", 1))
    elif place == "sparse":
        places = helper.make_tensor("at", TensorProto.INT64, [3], [0, 1, 2])
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(weight, places, [3]))
    return write(bytes(model.SerializeToString()), path)


def _branches(before: list[NodeProto], weights: list[TensorProto]) -> tuple[list[NodeProto], list[TensorProto]]:
    """y = x + w within a branch that is always taken."""
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    taken = helper.make_graph([*before, helper.make_node("Add", ["x", "w"], ["y"])], "taken", [], out, weights)
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", [], out)
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("GreaterOrEqual", ["m", "m"], ["always"]),
        helper.make_node("If", ["always"], ["y"], then_branch=taken, else_branch=other),
    ]
    return nodes, []


def doubled_length() -> bytes:
    """ids [n, length] -> y [n, 2 length]."""
    node = helper.make_node("Concat", ["ids", "ids"], ["y"], axis=1)
    return build([node], [("ids", "INT64", ("n", "length"))], [("y", "INT64", ("n", "twice"))])
