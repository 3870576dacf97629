from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import onnx_models, open_loop
from support.server_process import PlanVolume, infer_body
from support.web import Web, serving

Load = Callable[..., "Running"]


class Running:
    """Load that another process makes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._wait_for("started", 30)

    def wait_steady(self, seconds: float = 30) -> None:
        """Until as many requests have been answered as its flag --steady says."""
        self._wait_for("steady", seconds)

    def _wait_for(self, word: str, seconds: float) -> None:
        stream = self._process.stdout
        assert stream is not None
        told, _, _ = select.select([stream], [], [], seconds)
        line = stream.readline().decode() if told else "nothing"
        assert line == f"{word}\n", f"{line!r} in place of {word!r} within {seconds:g} s"

    def result(self) -> dict[str, Any]:
        output, _ = self._process.communicate(timeout=90)
        return dict(json.loads(output))


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    return onnx_models.write(onnx_models.identity(), tmp_path / "input" / "identity.onnx")


@pytest.fixture
def web() -> Iterator[Web]:
    with serving(Web()) as web:
        yield web


@pytest.fixture
def volume(tmp_path: Path) -> PlanVolume:
    return PlanVolume(tmp_path / "plan")


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    made: list[subprocess.Popen[bytes]] = []

    def start(port: int, model: str, rate: float, seconds: float, *flags: str) -> Running:
        body = tmp_path / "body.json"
        body.write_bytes(infer_body())
        url = f"http://127.0.0.1:{port}/v2/models/{model}/infer"
        command = [sys.executable, open_loop.__file__, url, str(body), str(rate), str(seconds), *flags]
        # Unbuffered: what `select` does not see would be waited for in vain.
        made.append(subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0))
        return Running(made[-1])

    yield start
    for process in made:
        process.kill()
        process.communicate()
