"""What a model takes of a GPU comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu.conftest import used_megabytes
from modelpier_server import runtime
from modelpier_server.contract import Options, Provider
from modelpier_server.runtime.providers import CUDA
from support import onnx_models
from support.onnx_models import write


@pytest.mark.parametrize("isolated", [False, True], ids=["here", "isolated"])
def test_loading_and_unloading_leaves_nothing(tmp_path: Path, isolated: bool) -> None:
    path = write(onnx_models.mlp((32, 4096, 4096, 4)), tmp_path / "m.onnx")  # 68 MB of weights
    options = Options(providers=(Provider(CUDA, {"enable_cuda_graph": "1"}),), isolated=isolated)

    def cycle() -> None:
        session = runtime.load(path, options)
        session.prepare(64)
        session.close()

    cycle()  # the context of this process, and what CUDA's libraries load once
    before = used_megabytes()
    for _ in range(10):
        cycle()
    assert used_megabytes() <= before + 64
