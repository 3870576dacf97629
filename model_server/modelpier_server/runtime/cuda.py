"""CUDA as ONNX Runtime needs it: its libraries, and memory that a GPU reaches by itself.

`onnx` calls this where a model is to run on a GPU; on a machine without one nothing here does anything.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from pathlib import Path
from typing import Any

import onnxruntime as ort

from modelpier_server.runtime.providers import CUDA

log = logging.getLogger(__name__)


@functools.cache
def load_libraries() -> None:
    """Those of CUDA and cuDNN that are installed as Python packages; the system finds others by itself."""
    if (Path(ort.__file__).parents[1] / "nvidia").is_dir():
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            ort.preload_dlls()


@functools.cache
def pinned_memory(number: int) -> Any:
    """An OrtMemoryInfo: page-locked memory of the host for the CUDA device of that number. None where there is none.

    ONNX Runtime tells of it once its CUDA provider is registered as a library, too.
    """
    library = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    if not _devices() and library.exists():
        try:
            ort.register_execution_provider_library(CUDA, str(library))
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no root of their own
            log.warning("memory cannot be page-locked", extra={"error": str(error)})
    devices = _devices()
    return devices[number].memory_info(ort.OrtDeviceMemoryType.HOST_ACCESSIBLE) if number < len(devices) else None


def _devices() -> list[Any]:
    return [device for device in ort.get_ep_devices() if device.ep_name == CUDA]
