"""SIGTERM loses no request: real process, load from another process, kept and new connections."""

from __future__ import annotations

import http.client
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from modelpier_server import contract
from support import onnx_models, open_loop
from support.server_process import infer_body, server, wait_for

from .conftest import Load

ACCEPT = "3"


def test_no_request_is_lost_under_load(tmp_path: Path, identity: Path, load: Load) -> None:
    with server(tmp_path / "s", "--model", f"m={identity}", "--drain-accept-seconds", ACCEPT) as running:
        running.wait_ready()
        traffic = load(running.port, "m", 150, 60, "--steady", "150", "--until-unready", "1.5")
        traffic.wait_steady()
        running.signal(signal.SIGTERM)
        found = traffic.result()
        assert running.wait() == 0, running.output
    assert found["errors"] == []
    assert set(found["outcomes"]) == {"200"}
    assert found["outcomes"]["200"] >= 250


def test_no_request_is_lost_through_the_end_of_listening(tmp_path: Path, identity: Path, load: Load) -> None:
    """Kept connections are used every two seconds or so; new ones go elsewhere before it ends, as endpoints do."""
    other = server(tmp_path / "other", "--model", f"m={identity}")
    with (
        other as next_one,
        server(tmp_path / "s", "--model", f"m={identity}", "--drain-accept-seconds", "2") as running,
    ):
        running.wait_ready()
        next_one.wait_ready()
        move = f"127.0.0.1:{next_one.port}"
        used = str(3 * open_loop.WORKERS)  # each worker's connection, and more than once
        traffic = load(running.port, "m", 30, 10, "--steady", used, "--until-unready", "0.5", "--move-to", move)
        traffic.wait_steady(8)
        running.signal(signal.SIGTERM)
        found = traffic.result()
        assert running.wait(5) == 0, running.output
    assert found["errors"] == []
    assert found["outcomes"] == {"200": 300}


def test_idle_connections_answer_once_more_after_the_end_of_listening(tmp_path: Path, identity: Path) -> None:
    with server(tmp_path / "s", "--model", f"m={identity}", "--drain-accept-seconds", "0.5") as running:
        running.wait_ready()
        kept = [http.client.HTTPConnection("127.0.0.1", running.port, timeout=10) for _ in range(4)]
        assert [closes(connection) for connection in kept] == [False] * 4
        running.signal(signal.SIGTERM)
        wait_for(lambda: running.call("GET", contract.LIVE_PATH)[0] == 0)
        for connection in kept[:3]:
            time.sleep(1.2)  # the client's own pace
            assert closes(connection)
        start = time.monotonic()
        assert running.wait(10) == 0
        assert time.monotonic() - start < 4  # nobody waits for the fourth as long as requests may take
        kept[3].close()


def closes(connection: http.client.HTTPConnection) -> bool:
    """Asks, gets 200, and says whether the server ends the connection."""
    connection.request("POST", "/v2/models/m/infer", infer_body())
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    return answer.headers["connection"] == "close"


def test_unready_at_once_alive_and_accepting(tmp_path: Path, identity: Path) -> None:
    with server(tmp_path / "s", "--model", f"m={identity}", "--drain-accept-seconds", ACCEPT) as running:
        running.wait_ready()
        start = time.monotonic()
        running.signal(signal.SIGTERM)
        wait_for(lambda: not running.ready, 2)
        assert time.monotonic() - start < 1.0
        assert running.call("GET", contract.READY_PATH)[0] == 503
        assert running.call("GET", contract.LIVE_PATH)[0] == 200
        assert running.call("POST", "/v2/models/m/infer", infer_body())[0] == 200
        assert running.wait() == 0
        assert time.monotonic() - start >= float(ACCEPT)


def test_kept_connections_are_told_to_go_at_once(tmp_path: Path, identity: Path) -> None:
    with server(tmp_path / "s", "--model", f"m={identity}", "--drain-accept-seconds", ACCEPT) as running:
        running.wait_ready()
        kept = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        assert not closes(kept)
        running.signal(signal.SIGTERM)
        wait_for(lambda: not running.ready, 2)
        assert closes(kept)
        assert running.call("GET", contract.LIVE_PATH)[0] == 200  # new connections are still taken
        assert running.wait() == 0


def test_requests_in_flight_are_answered(tmp_path: Path) -> None:
    """On a laptop nothing is waited for but what has come."""
    path = onnx_models.write(onnx_models.slow(512, 60), tmp_path / "slow.onnx")
    answers: list[int] = []
    with server(tmp_path / "s", "--model", f"m={path}") as running:
        running.wait_ready()
        body = infer_body(200, 512)

        def call() -> None:
            answers.append(running.call("POST", "/v2/models/m/infer", body)[0])

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_for(lambda: answers)  # one is answered, so that the others have come
        running.signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert running.wait() == 0
    assert answers == [200] * 8


@pytest.mark.parametrize(("limit", "answered"), [("0.5", False), ("60", True)])
def test_a_request_gets_the_time_that_the_pod_is_told(
    tmp_path: Path, identity: Path, limit: str, answered: bool
) -> None:
    told = {contract.ENV_DRAIN_LIMIT: limit}
    with server(tmp_path / "s", "--model", f"m={identity}", environment=told) as running:
        running.wait_ready()
        body = infer_body()
        head = f"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
            client.sendall(head + body[:10])
            wait_for(lambda: running.ready)  # a round trip later the first half has been read
            running.signal(signal.SIGTERM)
            time.sleep(1.5)  # the request takes longer than the shorter limit
            assert (running.process.poll() is None) == answered
            if answered:
                client.sendall(body[10:])
                answer = http.client.HTTPResponse(client)
                answer.begin()
                assert answer.status == 200
        assert running.wait() == 0


def test_a_request_that_is_still_being_sent_is_answered(tmp_path: Path, identity: Path) -> None:
    with server(tmp_path / "s", "--model", f"m={identity}") as running:
        running.wait_ready()
        body = infer_body()
        head = f"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
            client.sendall(head + body[:10])
            wait_for(lambda: running.ready)  # a round trip later the first half has been read
            running.signal(signal.SIGTERM)
            wait_for(lambda: running.call("GET", contract.LIVE_PATH)[0] == 0)
            client.sendall(body[10:])
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert running.wait() == 0


def test_asked_twice_it_ends_at_once(tmp_path: Path, identity: Path) -> None:
    with server(tmp_path / "s", "--model", f"m={identity}", "--drain-accept-seconds", "60") as running:
        running.wait_ready()
        running.signal(signal.SIGINT)
        wait_for(lambda: not running.ready, 2)
        running.signal(signal.SIGTERM)
        assert running.wait(5) == 128 + signal.SIGTERM


def test_it_can_end_while_a_model_is_on_its_way(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}/m.onnx"
        with server(tmp_path / "s", "--model", f"m={uri}") as running:
            wait_for(lambda: running.call("GET", contract.LIVE_PATH)[0] == 200)
            assert not running.ready
            running.signal(signal.SIGTERM)
            assert running.wait(5) == 0
