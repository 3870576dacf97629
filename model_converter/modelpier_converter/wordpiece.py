"""A BERT tokenizer as an ONNX graph: `sentences` string [batch] -> `ids`, `mask` int64 [batch, longest].

Rows are padded to the longest of the batch. The operators are ONNX's own, ONNX Runtime's (com.microsoft) and those of
onnxruntime-extensions (ai.onnx.contrib). The last's BertTokenizer would do it alone, but for what it gets wrong: its
normalisation knows little of Unicode, and of a word that it cannot finish it keeps the first pieces. So everything
but the search for pieces is done before, and no word reaches it that it cannot finish. It takes one text at a time,
and letters take much memory: hence the loops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from modelpier_converter.characters import pattern
from modelpier_converter.spelling import UNKNOWN, Spelling

OPSET = 20
IR_VERSION = 10
EXTENSIONS = "ai.onnx.contrib"
RUNTIME = "com.microsoft"
ML = "ai.onnx.ml"
OPSETS = {"": OPSET, ML: 3, RUNTIME: 1, EXTENSIONS: 1}
SENTENCES, IDS, MASK = "sentences", "ids", "mask"


@dataclass(frozen=True)
class WordPiece:
    vocabulary: Sequence[str]
    """By id."""
    spelling: Spelling
    max_length: int
    """Tokens of a row with [CLS] and [SEP]; longer texts are cut off."""
    prefix: str = "##"
    """Marks pieces within a word."""
    unknown: str = "[UNK]"
    begin: str = "[CLS]"
    end: str = "[SEP]"
    padding: str = "[PAD]"


def tokenizer_model(tokenizer: WordPiece) -> ModelProto:
    """A text that spells a special token, such as `[SEP]`, is text: nobody can smuggle one in."""
    nodes = [
        *_constants(tokenizer),
        *_clean(tokenizer.spelling),
        _each_row("clean", _letters(tokenizer.spelling), ["spelt"], [TensorProto.STRING]),
        *_words(),
        _each_row("words", _pieces(tokenizer), ["padded_ids", "padded_mask"], [TensorProto.INT64] * 2),
        *_cut(),
    ]
    graph = helper.make_graph(
        nodes,
        "tokenizer",
        [helper.make_tensor_value_info(SENTENCES, TensorProto.STRING, ["batch"])],
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "longest"]) for name in (IDS, MASK)],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="modelpier")


def _constants(tokenizer: WordPiece) -> list[NodeProto]:
    return [
        _integers("zero", [0]),
        _integers("one", [1]),
        _integers("max_length", [tokenizer.max_length]),
        _strings("nothing", [""]),
        helper.make_node("Constant", [], ["padding"], value_int=tokenizer.vocabulary.index(tokenizer.padding)),
        helper.make_node("Constant", [], ["not_a_token"], value_int=0),
        helper.make_node("Size", [SENTENCES], ["rows"]),
        helper.make_node("Shape", [SENTENCES], ["shape"]),
    ]


def _clean(spelling: Spelling) -> list[NodeProto]:
    """`sentences` -> `clean`. Extensions cut texts off at a NUL, so that goes first, by ONNX Runtime's own operator."""
    steps = [(spelling.removed, ""), (spelling.isolated, r" \0 ")]
    return [
        _split(SENTENCES, "between_nul", r"\x00"),
        _join("between_nul", "without_nul"),
        *_rewrite("without_nul", "clean", [(pattern(spans), rewrite) for spans, rewrite in steps if spans]),
    ]


def _split(source: str, target: str, separator: str) -> NodeProto:
    """[rows] -> [rows, parts], filled up with empty strings; an empty separator stands between any two letters."""
    return helper.make_node(
        "Tokenizer", [source], [target], domain=RUNTIME, mark=0, mincharnum=1, pad_value="", separators=[separator]
    )


def _join(source: str, target: str) -> NodeProto:
    """[rows, parts] -> [rows]."""
    return helper.make_node("StringJoin", [source, "nothing", "one"], [target], domain=EXTENSIONS)


def _rewrite(source: str, target: str, steps: Sequence[tuple[str, str]]) -> list[NodeProto]:
    """Patterns are compiled at each run: short ones, and never in a loop."""
    nodes = []
    for number, (expression, rewrite) in enumerate(steps):
        result = f"{target}_{number}"
        inputs = [source, f"{result}_pattern", f"{result}_rewrite"]
        nodes += [
            _strings(inputs[1], [expression]),
            _strings(inputs[2], [rewrite]),
            helper.make_node("StringRegexReplace", inputs, [result], domain=EXTENSIONS, global_replace=1),
        ]
        source = result
    return [*nodes, helper.make_node("Identity", [source], [target])]


def _each_row(source: str, nodes: Sequence[NodeProto], outputs: Sequence[str], types: Sequence[int]) -> NodeProto:
    """Runs `nodes` for `row` [1] of each row of `source`; each output stacks the `one_<output>` that they make."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on_before"], ["go_on"]),
            helper.make_node("Reshape", ["number", "one"], ["index"]),
            helper.make_node("Gather", [source, "index"], ["row"]),
            *nodes,
        ],
        f"row of {source}",
        [_info("number", TensorProto.INT64), _info("go_on_before", TensorProto.BOOL)],
        [_info("go_on", TensorProto.BOOL), *(_info(f"one_{o}", t, None) for o, t in zip(outputs, types, strict=True))],
    )
    return helper.make_node("Loop", ["rows", ""], list(outputs), body=body)


def _letters(spelling: Spelling) -> list[NodeProto]:
    """`row` -> `one_spelt` [1]: each letter as it shall be written."""
    table = helper.make_node(
        "LabelEncoder",
        ["letters"],
        ["written"],
        domain=ML,
        default_string=UNKNOWN,
        keys_strings=list(spelling.letters),
        values_strings=list(spelling.letters.values()),
    )
    return [_split("row", "letters", ""), table, _join("written", "one_spelt")]


def _words() -> list[NodeProto]:
    """`spelt` -> `words` [batch]: one space apart; one letter in place of those that have no pieces."""
    steps = [(f"[^ ]*{UNKNOWN}[^ ]*", UNKNOWN), (r"^ +| +$|( ) +", r"\1")]
    # The loop's output has a second axis of one.
    return [helper.make_node("Reshape", ["spelt", "shape"], ["rows_spelt"]), *_rewrite("rows_spelt", "words", steps)]


def _pieces(tokenizer: WordPiece) -> list[NodeProto]:
    """`row` -> `one_padded_ids`, `one_padded_mask` [max_length]: rows of a loop must have one length."""
    operator = helper.make_node(
        "BertTokenizer",
        ["row"],
        ["pieces", "piece_types", "piece_mask"],
        domain=EXTENSIONS,
        vocab_file="\n".join(tokenizer.vocabulary),
        do_basic_tokenize=0,
        do_lower_case=0,
        strip_accents=0,
        suffix_indicator=tokenizer.prefix,
        unk_token=tokenizer.unknown,
        cls_token=tokenizer.begin,
        sep_token=tokenizer.end,
        pad_token=tokenizer.padding,
        mask_token=tokenizer.padding,  # Looked up and never used; not every vocabulary has one.
        max_length=tokenizer.max_length,
    )
    return [
        operator,
        helper.make_node("Shape", ["pieces"], ["length"]),
        helper.make_node("Sub", ["max_length", "length"], ["missing"]),
        helper.make_node("Concat", ["zero", "missing"], ["pads"], axis=0),
        helper.make_node("Pad", ["pieces", "pads", "padding"], ["one_padded_ids"]),
        helper.make_node("Pad", ["piece_mask", "pads", "not_a_token"], ["one_padded_mask"]),
    ]


def _cut() -> list[NodeProto]:
    """No longer than the longest row."""
    return [
        helper.make_node("ReduceSum", ["padded_mask", "one"], ["lengths"], keepdims=0),
        helper.make_node("ReduceMax", ["lengths"], ["longest"], keepdims=1),
        helper.make_node("Slice", ["padded_ids", "zero", "longest", "one"], [IDS]),
        helper.make_node("Slice", ["padded_mask", "zero", "longest", "one"], [MASK]),
    ]


def _info(name: str, element_type: int, shape: Sequence[int] | None = ()) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type, shape)


def _strings(name: str, values: Sequence[str]) -> NodeProto:
    tensor = numpy_helper.from_array(np.array(values, np.object_), name)
    return helper.make_node("Constant", [], [name], value=tensor)


def _integers(name: str, values: Sequence[int]) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(values, np.int64)))
