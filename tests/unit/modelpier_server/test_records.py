"""What is noted of single requests: contexts of clients, samples, lines."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from modelpier_server.records import Parent, Recorder, parent_of, path_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEX = f"{TRACE}-{SPAN}"


def test_a_context() -> None:
    found = parent_of(f"00-{HEX}-01", "a=b,c=d")
    assert found == Parent(int(TRACE, 16), int(SPAN, 16), sampled=True, state="a=b,c=d")


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("03", True), ("02", False)])
def test_whether_the_client_samples(flags: str, *, sampled: bool) -> None:
    found = parent_of(f"00-{HEX}-{flags}")
    assert found is not None
    assert found.sampled is sampled


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"00-{HEX}",
        f"ff-{HEX}-01",
        f"00-{HEX}-01-more",
        f"00-{HEX.upper()}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{HEX}-01, 00-{HEX}-01",
        "00-" + "\u0660" * 32 + f"-{SPAN}-01",
    ],
)
def test_what_is_no_context_begins_a_trace(header: str | None) -> None:
    assert parent_of(header) is None


def test_a_later_version_may_say_more() -> None:
    assert parent_of(f"01-{HEX}-01-more") is not None


def test_a_state_without_end_is_dropped() -> None:
    found = parent_of(f"00-{HEX}-01", "a=" + "b" * 1000)
    assert found is not None
    assert not found.state


def test_a_share_is_logged() -> None:
    recorder = Recorder(0.25)
    found = sum(recorder.begin(None, None) is not None for _ in range(4000))
    assert 800 < found < 1200
    assert all(Recorder(1.0).begin(None, None) for _ in range(100))
    assert not any(Recorder(0.0).begin(None, None) for _ in range(100))


def test_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "modelpier_server.access")
    recorder = Recorder(1.0)
    record = recorder.begin(f"00-{HEX}-00", None)
    assert record is not None
    record.served("m", "2")
    recorder.end(record, "", {}, lambda: {"status": 200}, failed=False)
    (line,) = caplog.records
    found = {name: vars(line)[name] for name in ("status", "model", "version", "trace_id")}
    assert found == {"status": 200, "model": "m", "version": "2", "trace_id": TRACE}
    assert 0 <= vars(line)["seconds"] < 10


@pytest.mark.parametrize(
    ("url", "path"),
    [(b"/a?key=secret", "/a"), (b"/a", "/a"), (b"/" + b"x" * 1000, "/" + "x" * 199), (b"/\xe9", "/\xe9")],
)
def test_paths_are_logged_without_what_clients_may_hide_in_a_query(url: bytes, path: str) -> None:
    assert path_of(url) == path


def test_the_sdk_is_loaded_by_nobody_who_sends_no_traces() -> None:
    """It costs a third of a second of the start."""
    program = "import modelpier_server.process, modelpier_server.transport.grpc, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert "modelpier_server.records" in done.stdout
    assert "opentelemetry" not in done.stdout
