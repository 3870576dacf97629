"""Model files. `operators` is what reads a file before ONNX Runtime does; `load` is the whole way to a session.

ONNX Runtime is native code of others: what it does to its process is told apart from what ours does.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fuzz.targets import Check
from modelpier_server.contract import Options
from modelpier_server.errors import ModelError
from modelpier_server.protocol.signature import Signature
from modelpier_server.runtime import extensions, load
from support import onnx_models


def _file() -> Path:
    """In memory where there is such a place."""
    shared = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="modelpier-fuzz-", dir=shared if os.access(shared, os.W_OK) else None)
    return Path(folder) / "model.onnx"


def make_operators() -> Check:
    file = _file()

    def check(data: bytes) -> None:
        file.write_bytes(data)
        extensions.wanted(file)

    return check


def make_load() -> Check:
    file, options = _file(), Options(threads=1, instances=1)

    def check(data: bytes) -> None:
        file.write_bytes(data)
        try:
            session = load(file, options)
        except ModelError:
            return
        Signature.of(session.inputs, session.outputs)
        session.close()

    return check


def _models() -> Mapping[str, bytes]:
    return {
        "identity": onnx_models.identity(),
        "strings": onnx_models.identity("BYTES"),
        "add": onnx_models.add(),
        "mlp": onnx_models.mlp((4, 3, 2)),
        "gather": onnx_models.gather(3),
        "loop": onnx_models.counting(),
        "sequence": onnx_models.sequence_output(),
        "half": onnx_models.identity("FP16", (None, 2)),
    }


def seeds_load() -> Mapping[str, bytes]:
    return _models()


def seeds_operators() -> Mapping[str, bytes]:
    # An import of the domain: ModelProto.opset_import (8) of OperatorSetIdProto.domain (1) and version (2).
    wanted = b"\x42\x13\x0a\x0fai.onnx.contrib\x10\x01"
    return {**_models(), "wanted": onnx_models.identity() + wanted}
