"""Where runs take place."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from modelpier_server import runtime
from modelpier_server.contract import Options
from modelpier_server.scheduler.batch import Batch
from modelpier_server.scheduler.placement import Placement
from modelpier_server.scheduler.runner import timed
from modelpier_server.scheduler.work import Work
from support import onnx_models
from support.sessions import Wrapped

FAST, SLOW = 10e-6, 5e-3


def test_what_is_not_known_goes_to_threads() -> None:
    assert not Placement().on_loop(1)


def test_what_was_measured_decides() -> None:
    placement = Placement()
    placement.learn(32, FAST)
    placement.learn(4096, SLOW)
    assert placement.on_loop(32)
    assert not placement.on_loop(4096)


def test_sizes_between_take_the_larger_ones_cost() -> None:
    placement = Placement()
    placement.learn(32, FAST)
    placement.learn(4096, SLOW)
    assert not placement.on_loop(512)
    assert placement.on_loop(8)


def test_sizes_beyond_are_expected_to_cost_more() -> None:
    placement = Placement()
    placement.learn(32, FAST)
    assert placement.on_loop(64)
    assert not placement.on_loop(1024)


def test_one_outlier_changes_nothing_but_a_new_level_does() -> None:
    placement = Placement()
    placement.learn(32, FAST)
    placement.ran_on_loop(32, 1.0)
    assert placement.on_loop(32)
    runs = 0
    while placement.on_loop(32):
        placement.ran_on_loop(32, SLOW)
        runs += 1
    assert runs < 20


def test_a_model_whose_cost_follows_from_values_leaves_the_loop_for_good() -> None:
    placement = Placement()
    placement.learn(32, FAST)
    for _ in range(2):
        placement.ran_on_loop(32, 10.0)
        for _ in range(50):
            placement.ran_on_loop(32, FAST)
        assert placement.on_loop(32)
    placement.ran_on_loop(32, 10.0)
    for _ in range(50):
        placement.ran_on_thread(32, FAST)
    assert not placement.on_loop(32)


def test_a_model_that_has_become_fast_comes_back_to_the_loop() -> None:
    """The waits for the GIL, which most measurements on threads hold, do not keep it there."""
    placement = Placement()
    placement.learn(32, SLOW)
    for index in range(16):
        assert not placement.on_loop(32)
        placement.ran_on_thread(32, FAST if index == 7 else SLOW)
    assert placement.on_loop(32)


@pytest.mark.parametrize("caller_only", [True, False])
def test_the_clock_leaves_others_out_where_a_run_uses_the_calling_thread_alone(
    tmp_path: Path, caller_only: bool
) -> None:
    """On a busy machine a run of microseconds may last milliseconds; only its own CPU time says what it costs."""

    class Waiting(Wrapped):
        @property
        def caller_only(self) -> bool:
            return caller_only

        def run(self, feeds: object, outputs: object, control: object = None) -> list[np.ndarray]:
            time.sleep(0.05)
            return []

    session = runtime.load(onnx_models.write(onnx_models.identity(), tmp_path / "m.onnx"), Options())
    batch = Batch([Work({}, None, 0.0)], [{}], (), 0, 0)
    _, seconds = timed(Waiting(session), batch)
    assert (seconds < 0.04) is caller_only
