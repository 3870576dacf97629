"""Models in processes of their own, with the real server: a crash takes the run under way and nothing else."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import onnx_models
from support.server_process import ServerProcess, infer_body, server, wait_for

WORKER = "modelpier_server.runtime.isolation.worker"


def workers(running: ServerProcess) -> list[int]:
    """Pids of the models' processes."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                command = (folder / "cmdline").read_text()
            except OSError:
                continue
            if parent == running.process.pid and WORKER in command:
                found.append(int(folder.name))
    return sorted(found)


@pytest.fixture
def two(tmp_path: Path, identity: Path) -> Iterator[ServerProcess]:
    slow = onnx_models.write(onnx_models.slow(size=1024, layers=200), tmp_path / "slow.onnx")
    with server(tmp_path / "s", "--isolated", "--model", f"slow={slow}", "--model", f"m={identity}") as running:
        running.wait_ready()
        yield running


def test_each_model_has_a_process_that_goes_with_the_server(two: ServerProcess) -> None:
    assert two.call("POST", "/v2/models/m/infer", infer_body())[0] == 200
    started = workers(two)
    assert len(started) == 2
    two.signal(signal.SIGTERM)
    assert two.wait() == 0
    wait_for(lambda: not [pid for pid in started if Path(f"/proc/{pid}").exists()])


def test_the_processes_end_with_a_server_that_was_killed(two: ServerProcess) -> None:
    started = workers(two)
    two.signal(signal.SIGKILL)
    two.wait()
    wait_for(lambda: not [pid for pid in started if Path(f"/proc/{pid}").exists()])


def test_a_crash_takes_no_neighbour_and_heals(two: ServerProcess) -> None:
    shape = json.loads(two.call("GET", "/v2/models/slow")[1])["inputs"][0]
    body = json.dumps({
        "inputs": [{
            "name": shape["name"],
            "shape": [abs(size) for size in shape["shape"]],
            "datatype": shape["datatype"],
            "data": [0.0] * abs(shape["shape"][0] * shape["shape"][1]),
        }]
    }).encode()  # fmt: skip
    answers: list[tuple[int, bytes]] = []
    before = workers(two)
    victim = max(before, key=_resident)
    callers = [
        threading.Thread(target=lambda: answers.append(two.call("POST", "/v2/models/slow/infer", body)))
        for _ in range(3)
    ]
    for caller in callers:
        caller.start()
    wait_for(lambda: b'nv_inference_pending_request_count{model="slow",version="1"} ' in two.call("GET", "/metrics")[1])
    os.kill(victim, signal.SIGSEGV)
    for caller in callers:
        caller.join(30)
        assert not caller.is_alive()
    assert {status for status, _ in answers} <= {200, 500, 503}, "each got an answer over HTTP"
    assert two.call("POST", "/v2/models/m/infer", infer_body())[0] == 200
    wait_for(lambda: two.call("POST", "/v2/models/slow/infer", body)[0] == 200)
    after = workers(two)
    assert len(after) == 2
    assert victim not in after
    assert two.process.poll() is None


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
