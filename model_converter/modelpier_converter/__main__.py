"""The converter's command line: `python -m modelpier_converter sentence-encoder DIRECTORY -o OUT.onnx`.

Prints what was made as JSON. Exit code 1 with one line on standard error when nothing was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from modelpier_converter.errors import ConversionError


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        return int(args.run(args))
    except ConversionError as error:
        print(f"modelpier-converter: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="modelpier-converter", description="models of other frameworks to ONNX")
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    kind = kinds.add_parser("sentence-encoder", help="sentence-transformers: sentences in, embeddings out")
    kind.add_argument("directory", type=Path, help="with model.safetensors, tokenizer.json, modules.json and so on")
    kind.add_argument("-o", "--out", type=Path, required=True, metavar="OUT.onnx")
    kind.add_argument(
        "--sentence",
        dest="sentences",
        action="append",
        default=[],
        metavar="TEXT",
        help="also compare these; the original's answers are printed with the rest (repeatable)",
    )
    kind.set_defaults(run=_sentence_encoder)
    return parser


def _sentence_encoder(args: argparse.Namespace) -> int:
    from modelpier_converter.sentence_encoder import convert  # noqa: PLC0415 - torch takes seconds to import

    report = convert(args.directory, args.out, args.sentences)
    print(json.dumps(dataclasses.asdict(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
