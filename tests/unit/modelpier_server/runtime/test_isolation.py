"""Models in processes of their own: what goes through, and what their end means."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from modelpier_server.contract import FailureReason, Options, Provider
from modelpier_server.errors import Cancelled, InferenceFailed, InvalidRequest, ModelError, OutOfMemory
from modelpier_server.ipc import packets
from modelpier_server.protocol.datatypes import DATATYPES
from modelpier_server.runtime import Control, load
from modelpier_server.runtime.isolation import IsolatedSession, load_isolated, messages, worker
from support import onnx_models
from support.onnx_models import write

WORKER = "modelpier_server.runtime.isolation.worker"


@contextmanager
def isolated(model: bytes, folder: Path, **options: Any) -> Iterator[IsolatedSession]:
    session = load_isolated(write(model, folder / "m.onnx"), Options(**options))
    assert isinstance(session, IsolatedSession)
    try:
        yield session
    finally:
        session.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def values(datatype: str) -> npt.NDArray[Any]:
    if datatype == "BYTES":
        return np.array([["a", "", "grün"]], np.object_)
    return np.array([[0, 1, 1]]).astype(DATATYPES[datatype].numpy)


def test_a_closed_session_that_somebody_still_knows_holds_no_memory(tmp_path: Path) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("memfd:modelpier-tensors")

    before, descriptors = mapped(), sum(1 for _ in Path("/proc/self/fd").iterdir())
    with isolated(onnx_models.identity(), tmp_path) as session:
        (kept,) = session.run({"x": np.ones((2, 3), np.float32)}, ["y"])
        assert mapped() > before
    assert (mapped(), sum(1 for _ in Path("/proc/self/fd").iterdir())) == (before, descriptors)
    assert kept.sum() == 6


@pytest.mark.parametrize("datatype", ["BOOL", "INT8", "UINT64", "FP16", "BF16", "FP64", "BYTES"])
def test_datatypes_go_through_as_in_this_process(tmp_path: Path, datatype: str) -> None:
    here = load(write(onnx_models.identity(datatype), tmp_path / "here.onnx"), Options())
    with isolated(onnx_models.identity(datatype), tmp_path) as session:
        assert (session.inputs, session.outputs, session.provider) == (here.inputs, here.outputs, here.provider)
        assert session.axes == here.axes
        for given in (values(datatype), values(datatype)[:0]):
            (got,) = session.run({"x": given}, ["y"])
            assert (got.dtype, got.shape) == (given.dtype, given.shape)
            assert np.array_equal(got, given)


def test_tensors_larger_than_the_arena_and_answers_that_outlive_the_next_run(tmp_path: Path) -> None:
    with isolated(onnx_models.add(), tmp_path) as session:
        large = np.arange(3_000_000, dtype=np.float32).reshape(-1, 3)
        both = session.run({"a": large, "b": large}, ["difference", "sum"])
        session.run({"a": -large, "b": large}, ["sum"])
        assert np.array_equal(both[0], np.zeros_like(large))
        assert np.array_equal(both[1], 2 * large)


def test_runs_at_once_do_not_meet(tmp_path: Path) -> None:
    with isolated(onnx_models.identity(), tmp_path, instances=4, threads=1) as session:
        wrong: list[int] = []

        def work(number: int) -> None:
            given = np.full((50, 3), number, np.float32)
            if any(not np.array_equal(session.run({"x": given}, ["y"])[0], given) for _ in range(100)):
                wrong.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_errors_of_a_run_are_those_of_this_process(tmp_path: Path) -> None:
    with isolated(onnx_models.gather(rows=10), tmp_path) as session:
        name = session.inputs[0].name
        out_of_bounds = {name: np.full([1] * len(session.inputs[0].shape), 99, np.int64)}
        with pytest.raises((InferenceFailed, InvalidRequest), match="model"):
            session.run(out_of_bounds, [session.outputs[0].name])
        assert session.run({name: np.zeros_like(out_of_bounds[name])}, [session.outputs[0].name])


def test_a_run_that_cannot_be_read_is_answered_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = np.ones((1, 3), np.float32)
    with isolated(onnx_models.identity(), tmp_path, instances=1) as session:
        with monkeypatch.context() as patch:
            patch.setattr("modelpier_server.runtime.isolation.session.encode", lambda _message: b"\xc1")
            with pytest.raises(InferenceFailed, match="unexpected DecodeError"):
                session.run({"x": given}, ["y"])
        assert np.array_equal(session.run({"x": given}, ["y"])[0], given)


def test_tensors_that_the_process_has_no_room_for_are_its_answer(tmp_path: Path) -> None:
    with isolated(onnx_models.identity(), tmp_path, instances=1) as session:
        session.run({"x": np.ones((1, 3), np.float32)}, ["y"])  # its channel is open now
        _, most = resource.prlimit(session.pid, resource.RLIMIT_AS)
        resource.prlimit(session.pid, resource.RLIMIT_AS, (1 << 20, most))
        with pytest.raises(OutOfMemory, match="no memory for the tensors"):
            session.run({"x": np.zeros((10_000_000, 3), np.float32)}, ["y"])
        resource.prlimit(session.pid, resource.RLIMIT_AS, (most, most))
        assert session.run({"x": np.ones((1, 3), np.float32)}, ["y"])[0].tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, FailureReason.MODEL_INVALID),
        ({"providers": (Provider("CUDAExecutionProvider"),)}, FailureReason.PROVIDER_UNAVAILABLE),
    ],
)
def test_what_cannot_be_loaded_says_why_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], reason: FailureReason
) -> None:
    started = _note_processes(monkeypatch)
    with pytest.raises(ModelError) as error:
        load_isolated(write(b"no model", tmp_path / "m.onnx"), Options(**options))
    assert error.value.reason is reason
    assert not alive(started[0])


def test_a_model_of_very_many_tensors_goes_through_or_says_why_not(tmp_path: Path) -> None:
    with isolated(onnx_models.many_inputs(700), tmp_path) as session:
        feeds = {spec.name: np.ones((1, 3), np.float32) for spec in session.inputs}
        assert session.run(feeds, ["y"])[0].tolist() == [[700, 700, 700]]
    with (
        pytest.raises(ModelError, match="too many inputs and outputs for a process of its own") as error,
        isolated(onnx_models.many_inputs(5000), tmp_path),
    ):
        pass
    assert error.value.reason is FailureReason.MODEL_INVALID


def rounds(k: int) -> dict[str, npt.NDArray[Any]]:
    return {"x": np.zeros((1, 3), np.float32), "k": np.array([k], np.int64)}


ENDLESS = 1 << 62


def test_a_run_that_nobody_waits_for_ends_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with isolated(onnx_models.counting(), tmp_path, instances=1) as session:
        for _ in range(3):
            control = Control()
            threading.Timer(0.1, control.abort).start()
            with pytest.raises(Cancelled):
                session.run(rounds(ENDLESS), ["y"], control)
            control.abort()  # once more, of a run that has ended: the next one must not notice
            assert session.run(rounds(4), ["y"], Control())[0].tolist() == [[4, 4, 4]]


def test_a_run_is_ended_alone(tmp_path: Path) -> None:
    with isolated(onnx_models.counting(), tmp_path, instances=2) as session:
        gone, stays = Control(), Control()
        got: list[Any] = []
        other = threading.Thread(target=lambda: got.extend(session.run(rounds(400_000), ["y"], stays)))
        other.start()
        threading.Timer(0.1, gone.abort).start()
        with pytest.raises(Cancelled):
            session.run(rounds(ENDLESS), ["y"], gone)
        other.join(60)
        assert got[0].tolist() == [[400_000] * 3]


def test_a_run_that_was_ended_before_it_began_is_not_run(tmp_path: Path) -> None:
    with isolated(onnx_models.counting(), tmp_path, instances=1) as session:
        control = Control()
        control.abort()
        with pytest.raises(Cancelled):
            session.run(rounds(ENDLESS), ["y"], control)


def test_an_order_that_overtakes_its_run_counts_for_it_and_for_no_other() -> None:
    runs = worker.Runs()
    runs.abort(2)
    assert not runs.begin(1).aborted
    runs.end()
    assert runs.begin(2).aborted
    runs.end()
    runs.abort(2)
    assert not runs.begin(3).aborted


def test_a_crash_fails_the_run_under_way_and_is_told(tmp_path: Path) -> None:
    with isolated(onnx_models.slow(size=1024, layers=400), tmp_path) as session:
        spec = session.inputs[0]
        feeds = {spec.name: np.zeros([abs(size) for size in spec.shape], np.float32)}
        threading.Timer(0.2, os.kill, (session.pid, signal.SIGSEGV)).start()
        with pytest.raises(InferenceFailed, match="was ended by SIGSEGV during the run"):
            _run_on(session, feeds)
        assert session.lost.done(), "at once: what a failed run means is decided by it"
        assert "SIGSEGV" in session.lost.result()
        with pytest.raises(InferenceFailed, match="SIGSEGV"):
            session.run(feeds, [session.outputs[0].name])


def test_a_crash_during_the_load_is_a_reason_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = _note_processes(monkeypatch, then=lambda pid: os.kill(pid, signal.SIGKILL))
    with pytest.raises(ModelError, match="SIGKILL") as error:
        load_isolated(write(onnx_models.identity(), tmp_path / "m.onnx"), Options())
    assert error.value.reason is FailureReason.MODEL_CRASHED
    assert not alive(started[0])


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOMEM, FailureReason.OUT_OF_MEMORY), (errno.EAGAIN, FailureReason.MODEL_CRASHED)],
)
def test_a_process_that_cannot_be_started_is_no_fault_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: FailureReason
) -> None:
    def fail(*_args: Any, **_named: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", fail)
    before = _open_files()
    with pytest.raises(ModelError, match=os.strerror(number)) as error:
        load_isolated(tmp_path / "m.onnx", Options())
    assert error.value.reason is reason
    assert _open_files() == before


def test_what_lies_in_the_working_directory_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(b"raise SystemExit('not ours')", tmp_path / "here" / "modelpier_server" / "__init__.py")
    monkeypatch.chdir(tmp_path / "here")
    with isolated(onnx_models.identity(), tmp_path) as session:
        assert session.pid


def test_a_load_ends_when_it_is_no_longer_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped by a signal, the process loads for ever."""
    started = _note_processes(monkeypatch, then=lambda pid: os.kill(pid, signal.SIGSTOP))
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(ModelError, match="no longer wanted"):
        load_isolated(write(onnx_models.identity(), tmp_path / "m.onnx"), Options(), stop)
    assert not alive(started[0])


def test_a_process_ends_with_its_server_in_the_middle_of_a_load(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")  # nobody writes: a load that never ends
    ours, theirs = packets.pair()
    number = str(theirs.fileno())
    with theirs:
        worker = subprocess.Popen([sys.executable, "-P", "-m", WORKER, number], pass_fds=(theirs.fileno(),))
    try:
        packets.send(ours, packets.encode(messages.Load(str(tmp_path / "m.onnx"), Options())))
        held = _wait_until_opened(tmp_path / "m.onnx")
        ours.close()
        assert worker.wait(10) == 0
        os.close(held)
    finally:
        worker.kill()
        worker.wait()


def _wait_until_opened(fifo: Path) -> int:
    """Waits for a reader; the descriptor that keeps it waiting in turn."""
    end = time.monotonic() + 30
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert time.monotonic() < end, "nobody loads it"
            time.sleep(0.02)


def test_closing_ends_the_process_even_within_a_run_and_is_no_crash(tmp_path: Path) -> None:
    with isolated(onnx_models.slow(size=1024, layers=400), tmp_path) as session:
        spec = session.inputs[0]
        feeds = {spec.name: np.zeros([abs(size) for size in spec.shape], np.float32)}
        running = threading.Thread(target=_until_it_fails, args=(session, feeds), daemon=True)
        running.start()
        session.close()
        assert not alive(session.pid)
        running.join(10)
        assert not running.is_alive()
        assert not session.lost.done()


def test_runs_that_wait_for_their_turn_end_with_the_session(tmp_path: Path) -> None:
    with isolated(onnx_models.slow(size=1024, layers=400), tmp_path, instances=1) as session:
        spec = session.inputs[0]
        feeds = {spec.name: np.zeros([abs(size) for size in spec.shape], np.float32)}
        running = [threading.Thread(target=_until_it_fails, args=(session, feeds), daemon=True) for _ in range(8)]
        for thread in running:
            thread.start()
        session.close()
        for thread in running:
            thread.join(10)
        assert not [thread for thread in running if thread.is_alive()]


@pytest.mark.parametrize("handed_over", [0, 2])
def test_what_cannot_be_handed_over_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handed_over: int
) -> None:
    send_fds = socket.send_fds
    sent: list[Any] = []

    def fail(*args: Any) -> int:
        if len(sent) == handed_over:
            raise OSError(errno.ETOOMANYREFS, "Too many references: cannot splice")
        sent.append(args)
        return send_fds(*args)

    monkeypatch.setattr(socket, "send_fds", fail)
    model = write(onnx_models.identity(), tmp_path / "m.onnx")
    before = _open_files()
    with pytest.raises(ModelError, match=r"could be started: .* Too many references"):
        load_isolated(model, Options(instances=4))
    assert len(sent) == handed_over
    assert _open_files() == before


def _open_files() -> list[str]:
    """Kinds of what this process has open: numbers are used again, and inodes are new each time."""
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the look itself
            links.append(re.sub(r"\d+", "N", str(link.readlink())))
    return sorted(links)


def _run_on(session: IsolatedSession, feeds: dict[str, npt.NDArray[Any]]) -> None:
    while True:
        session.run(feeds, [session.outputs[0].name])


def _until_it_fails(session: IsolatedSession, feeds: dict[str, npt.NDArray[Any]]) -> None:
    with contextlib.suppress(InferenceFailed):
        _run_on(session, feeds)


def _note_processes(monkeypatch: pytest.MonkeyPatch, then: Callable[[int], None] = lambda _pid: None) -> list[int]:
    """Pids of the workers that are started from now on."""
    started: list[int] = []
    popen = subprocess.Popen

    def note(*args: Any, **named: Any) -> Any:
        process = popen(*args, **named)
        started.append(process.pid)
        then(process.pid)
        return process

    monkeypatch.setattr(subprocess, "Popen", note)
    return started
