"""What of CUDA a machine without one can show."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest

from modelpier_server.runtime import cuda, providers


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    cuda.pinned_memory.cache_clear()
    cuda.load_libraries.cache_clear()


def test_there_is_no_pinned_memory_without_a_gpu() -> None:
    assert cuda.pinned_memory(0) is None


def test_the_memory_is_that_of_the_devices_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def device(name: str, text: str) -> Any:
        return SimpleNamespace(ep_name=name, memory_info=lambda kind: (text, kind))

    found = [device(providers.CPU, "cpu"), device(providers.CUDA, "first"), device(providers.CUDA, "second")]
    monkeypatch.setattr(ort, "get_ep_devices", lambda: found)
    assert cuda.pinned_memory(1) == ("second", ort.OrtDeviceMemoryType.HOST_ACCESSIBLE)
    assert cuda.pinned_memory(2) is None


def test_libraries_of_the_system_are_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> None:
        raise AssertionError("there is no package nvidia here")

    monkeypatch.setattr(ort, "preload_dlls", never)
    cuda.load_libraries()
