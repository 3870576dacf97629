"""`modelpier-server --model NAME=URI` without any Kubernetes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelpier_server import contract
from support import onnx_models
from support.server_process import free_port, infer_body, server, wait_for
from support.web import Web


def test_a_path_is_enough(tmp_path: Path, identity: Path) -> None:
    with server(tmp_path / "s", "--model", f"m={identity}") as running:
        running.wait_ready()
        status, answer = running.call("POST", "/v2/models/m/infer", infer_body())
        assert status == 200
        assert json.loads(answer)["outputs"][0]["data"] == [0.0, 1.0, 2.0]
        assert running.call("GET", contract.STATE_PATH)[0] == 404  # nothing of the admin port is on this one
        running.signal(signal.SIGTERM)
        assert running.wait() == 0


TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@pytest.mark.parametrize("flags", [(), ("--access-log",), ("--access-log", "0")])
def test_an_access_log_when_asked_for(tmp_path: Path, identity: Path, flags: tuple[str, ...]) -> None:
    with server(tmp_path / "s", "--model", f"m={identity}", "--log-format", "json", *flags) as running:
        running.wait_ready()
        headers = {"traceparent": TRACEPARENT, "authorization": "Bearer secret"}
        assert running.call("POST", "/v2/models/m/infer?key=secret", infer_body(), headers)[0] == 200
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
        lines = [json.loads(line) for line in running.output.splitlines() if "/infer" in line]
        assert "secret" not in running.output
    assert len(lines) == (flags == ("--access-log",))
    for line in lines:
        assert line.pop("time")
        assert 0 < line.pop("seconds") < 10
        assert line.pop("response_bytes") > 100
        assert line == {
            "level": "info",
            "logger": "modelpier_server.access",
            "message": "request",
            "method": "POST",
            "path": "/v2/models/m/infer",
            "status": 200,
            "request_bytes": len(infer_body()),
            "client": "127.0.0.1",
            "model": "m",
            "version": "1",
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
        }


def test_several_models_and_a_folder_with_external_data(tmp_path: Path, identity: Path) -> None:
    folder = tmp_path / "folder"
    onnx_models.external(folder / "model.onnx", "weights.bin", b"\0\0\x80\x3f" * 3)
    (folder / "weights.bin").write_bytes(b"\0\0\x80\x3f" * 3)
    with server(tmp_path / "s", "--model", f"a={identity}", "--model", f"b={folder}") as running:
        running.wait_ready()
        answer = json.loads(running.call("POST", "/v2/models/b/infer", infer_body())[1])
        assert answer["outputs"][0]["data"] == [1.0, 2.0, 3.0]
        assert json.loads(running.call("GET", "/v2/models/a")[1])["name"] == "a"


def test_over_http_with_a_cache(tmp_path: Path, web: Web) -> None:
    web.files["/m.onnx"] = onnx_models.mlp()
    with server(tmp_path / "s", "--model", f"m={web.url}/m.onnx") as running:
        running.wait_ready()
    assert len(list((tmp_path / "s" / "models" / "blobs" / "sha256").iterdir())) == 1


@pytest.mark.parametrize(
    ("uri", "reason", "status"),
    [
        ("nowhere.onnx", "ModelNotFound", contract.EXIT_MODEL_FAILED),
        ("{broken}", "ModelInvalid", contract.EXIT_MODEL_FAILED),
        ("{identity} --digest m=sha256:" + "0" * 64, "DigestMismatch", contract.EXIT_MODEL_FAILED),
        ("{identity} --provider CUDAExecutionProvider", "ProviderUnavailable", contract.EXIT_MODEL_FAILED),
        ("ftp://host/m.onnx", "uri: must begin with", 2),
    ],
)
def test_a_model_that_fails_is_one_clear_line(
    tmp_path: Path, identity: Path, uri: str, reason: str, status: int
) -> None:
    broken = onnx_models.write(b"no model", tmp_path / "broken.onnx")
    flags = f"--log-level WARNING --model m={uri}".format(identity=identity, broken=broken).split()
    with server(tmp_path / "s", *flags) as running:
        assert running.wait() == status
        lines = running.output.strip().splitlines()
        assert len(lines) == 1, running.output
        assert lines[0].startswith("modelpier-server: ")
        assert reason in lines[0]


def test_a_port_that_is_taken(tmp_path: Path, identity: Path) -> None:
    with server(tmp_path / "a", "--model", f"m={identity}") as first:
        first.wait_ready()
        command = [sys.executable, "-m", "modelpier_server", "--model", f"m={identity}", "--http-port", str(first.port)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 69
    assert "--http-port" in second.stderr
    assert "Traceback" not in second.stderr


def test_start_is_quick(tmp_path: Path, identity: Path) -> None:
    """CPU seconds, because wall-clock figures say more about the machine's neighbours than about the server."""
    before = os.times()
    with server(tmp_path / "s", "--model", f"m={identity}") as running:
        running.wait_ready()
        running.signal(signal.SIGTERM)
        running.wait()
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.5


def test_a_laptops_port_of_choice_is_told(tmp_path: Path, identity: Path) -> None:
    port = free_port()
    with server(
        tmp_path / "s", "--model", f"m={identity}", "--http-port", str(port), "--log-format", "json"
    ) as running:
        running.port = port
        running.wait_ready()
        first = json.loads(running.output.splitlines()[0])
    assert (first["message"], first["http_port"]) == ("listening", port)


def test_a_download_goes_on_after_kill(tmp_path: Path, web: Web) -> None:
    """Five ranges; the process is killed when three have arrived, and the next one asks for the rest alone."""
    data = onnx_models.mlp() + bytes(70 * 2**20)  # a size alone; whether it is a model comes later
    web.files["/m.onnx"] = data
    late = ("bytes=50331648-67108863", "bytes=67108864-")

    def hold(seen: object) -> None:
        if str(getattr(seen, "range", "")).startswith(late):
            time.sleep(60 if not released else 0)

    released: list[bool] = []
    web.before = hold
    folder = tmp_path / "s"
    with server(folder, "--model", f"m={web.url}/m.onnx") as first:

        def arrived() -> bool:
            maps = list((folder / "models" / "partial").glob("*/0/ranges"))
            return bool(maps) and sum(maps[0].read_bytes()) == 3

        wait_for(arrived)
        first.signal(signal.SIGKILL)
        first.wait()
    released.append(True)
    web.seen.clear()
    with server(folder, "--model", f"m={web.url}/m.onnx") as second:
        assert second.wait() == contract.EXIT_MODEL_FAILED
        assert "ModelInvalid" in second.output
    assert sorted(seen.range[:14] for seen in web.seen) == ["bytes=0-167772", "bytes=50331648", "bytes=67108864"]
    blobs = list((folder / "models" / "blobs" / "sha256").iterdir())
    assert [(b / "model.onnx").read_bytes() == data for b in blobs] == [True]


def test_it_takes_the_descriptors_that_its_connections_need(tmp_path: Path, identity: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    try:
        with server(tmp_path / "s", "--model", f"m={identity}") as running:
            running.wait_ready()
            assert resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE) == (min(hard, 1 << 16), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
