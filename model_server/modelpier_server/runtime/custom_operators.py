"""Libraries of operators that a model's folder brings: registered where the model's options name them, and only there.

`onnx.load` calls `register` before it makes a session. What is loaded is native code with all rights of its process,
from the moment on in which it is mapped. It stays until the process ends: ONNX Runtime would unload it with its last
session, and the library of onnxruntime-extensions, for one, takes the process down when it is loaded a second time.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from modelpier_server.contract import FailureReason
from modelpier_server.errors import ModelError

ENTRY_POINT = "RegisterCustomOps"
LONGEST_TEXT = 1000
_seen: dict[Path, str] = {}
"""SHA-256 of what this process was to load from each path. The dynamic linker knows libraries by their paths, and gives
out the ones that it has, whatever has become of the file."""
_loading = threading.Lock()


def register(session_options: ort.SessionOptions, folder: Path, names: Sequence[str]) -> None:
    """`names` are paths relative to the model's folder. Raises ModelError(MODEL_INVALID), which names the file."""
    for name in names:
        path = _within(folder, name)
        _load(path, name)
        try:
            session_options.register_custom_ops_library(str(path))
        except Exception as error:  # ONNX Runtime's exceptions have no root of their own
            raise _refusal(name, _text(error)) from error


def _within(folder: Path, name: str) -> Path:
    try:
        path = (folder / name).resolve(strict=True)
        inside = path.is_relative_to(folder.resolve(strict=True))
    except (OSError, RuntimeError, ValueError) as error:  # there is none, links in a circle, a NUL
        raise _refusal(name, "there is no such file in the model's folder") from error
    if not inside:
        raise _refusal(name, "it lies outside of the model's folder: no symbolic link may lead there")
    if not path.is_file():
        raise _refusal(name, "it is no regular file")
    return path


def _load(path: Path, name: str) -> None:
    """For good: ctypes never closes what it has opened."""
    try:
        with _loading:
            _check_same(path, name)
            library = ctypes.CDLL(str(path))
    except OSError as error:
        raise _refusal(name, f"it cannot be loaded as a shared library: {_text(error)}") from error
    if not hasattr(library, ENTRY_POINT):
        raise _refusal(name, f"it has no {ENTRY_POINT}: it is no library of custom operators for ONNX Runtime")


def _check_same(path: Path, name: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if _seen.setdefault(path, found) != found:
        text = "this process knows the path with other bytes, and may have those still"
        raise _refusal(name, f"{text}: use another path or server.isolated, or restart the server")


def _refusal(name: str, text: str) -> ModelError:
    return ModelError(FailureReason.MODEL_INVALID, f"customOperators: '{name[:256]}': {text}")


def _text(error: Exception) -> str:
    return " ".join(str(error).split())[:LONGEST_TEXT]
