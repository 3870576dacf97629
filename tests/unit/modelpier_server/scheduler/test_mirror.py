"""Shadows: what they are given, what is found out, and that callers notice nothing of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelpier_server.contract import Comparison, Limits, Outcome, PlannedModel, Role
from modelpier_server.scheduler import Mirrors, Servable, mirror
from modelpier_server.telemetry import Metrics
from support import onnx_models
from support.serving import Gated, gated, planned, servable, threaded, until

FAR = float("inf")


def x(*rows: float) -> dict[str, np.ndarray]:
    return {"x": np.repeat(np.array(rows, np.float32)[:, None], 3, axis=1)}


def shadow_plan(**options: Any) -> PlannedModel:
    return replace(planned(version="2", **options), revision="m-r2", role=Role.SHADOW)


def count(shadow: Servable, outcome: Outcome) -> int:
    return sum(found.outcomes[outcome] for found in shadow.compared)


def one(shadow: Servable) -> Comparison:
    (found,) = shadow.compared
    return found


Follow = Callable[..., Mirrors]


@pytest.fixture
def follow() -> Iterator[Follow]:
    """Connects, and takes all apart at the end."""
    made: list[tuple[Mirrors, tuple[Servable, ...]]] = []

    def connect(*served: Servable, share: int = 100) -> Mirrors:
        mirrors = Mirrors()
        made.append((mirrors, served))
        mirrors.follow([(replace(s.planned, weight=share), s) for s in served])
        return mirrors

    yield connect
    for mirrors, served in made:
        mirrors.follow([])
        for each in served:
            each.close()


async def test_differences_of_a_model(tmp_path: Path, follow: Follow) -> None:
    primary = servable(onnx_models.mlp(seed=0), tmp_path)
    shadow = servable(onnx_models.mlp(seed=1), tmp_path, shadow_plan())
    mirrors = follow(primary, shadow)
    values = np.random.default_rng(0).normal(size=(24, 32)).astype(np.float32)
    answers = [primary.submit({"x": values[i : i + 3]}, None, FAR) for i in range(0, 24, 3)]
    expected = np.concatenate([(await answer)[0] for answer in answers])
    await until(lambda: count(shadow, Outcome.COMPARED) == 8)
    (output,) = one(shadow).outputs
    found = shadow.session.run({"x": values}, ["y"])[0]
    assert output.max_absolute == pytest.approx(np.abs(expected - found).max(), rel=1e-4)
    assert output.mean_absolute == pytest.approx(np.abs(expected - found).mean(), rel=1e-4)
    assert (output.rows, output.top1_rows, output.elements) == (24, 24, 96)
    assert output.top1_agreed == np.count_nonzero(expected.argmax(1) == found.argmax(1))
    assert not shadow._runners or shadow._metrics.success == 8
    text = "\n".join(mirrors.lines())
    labels = 'model="m",version="1",shadow_version="2"'
    assert f'modelpier_shadow_requests_total{{{labels},outcome="compared"}} 8' in text
    assert f'modelpier_shadow_top1_rows_total{{{labels},output="y"}} 24' in text
    assert f'modelpier_shadow_absolute_difference_count{{{labels},output="y"}} 8' in text
    assert 'modelpier_shadow_run_duration_seconds_count{model="m",shadow_version="2"}' in text


async def test_a_shadow_never_runs_on_the_loop_nor_counts_among_callers(tmp_path: Path, follow: Follow) -> None:
    metrics = Metrics()
    primary = servable(onnx_models.identity(), tmp_path, metrics=metrics)
    shadow = servable(onnx_models.identity(), tmp_path, shadow_plan(), metrics)
    follow(primary, shadow)
    await primary.submit(x(1), None, FAR)
    await until(lambda: count(shadow, Outcome.COMPARED) == 1)
    assert not primary._runners
    assert shadow._runners
    assert metrics.find("m", "2") is None
    assert shadow.mirrors == ()


async def test_a_request_in_pieces_is_compared_as_a_whole(tmp_path: Path, follow: Follow) -> None:
    primary = threaded(onnx_models.identity(), tmp_path, rows=4)
    shadow = threaded(onnx_models.identity(), tmp_path, shadow_plan(), rows=4)
    follow(primary, shadow)
    await primary.submit(x(*range(10)), None, FAR)
    await until(lambda: count(shadow, Outcome.COMPARED) == 1)
    (output,) = one(shadow).outputs
    assert (output.rows, output.equal) == (10, 30)


@pytest.fixture
def held(tmp_path: Path, follow: Follow) -> Iterator[tuple[Servable, Servable, Gated, Mirrors]]:
    """A shadow whose runs wait at a gate."""
    primary = servable(onnx_models.identity(), tmp_path)
    shadow, session = gated(onnx_models.identity(), tmp_path, shadow_plan(instances=1))
    yield primary, shadow, session, follow(primary, shadow)
    session.gate.set()


async def test_a_slow_shadow_holds_up_nobody(
    held: tuple[Servable, Servable, Gated, Mirrors], monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, shadow, session, _ = held
    monkeypatch.setattr(mirror, "MOST_WAITING", 5)
    for i in range(20):
        assert (await primary.submit(x(i), None, FAR))[0][0, 0] == i
    assert count(shadow, Outcome.DROPPED) == 15
    assert primary.in_flight == 0
    assert await primary.drain(0.0)
    session.gate.set()
    await until(lambda: count(shadow, Outcome.COMPARED) == 5)


async def test_bytes_that_wait_are_bounded(
    held: tuple[Servable, Servable, Gated, Mirrors], monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, shadow, session, _ = held
    monkeypatch.setattr(mirror, "MOST_BYTES", 100)
    for rows in (3, 2, 1, 1):  # of 24 bytes each, in and out
        await primary.submit(x(*range(rows)), None, FAR)
    assert count(shadow, Outcome.DROPPED) == 2
    assert isinstance(shadow.mirror, mirror.Mirror)
    assert shadow.mirror.bytes == 96
    session.gate.set()
    await until(lambda: count(shadow, Outcome.COMPARED) == 2)
    await until(lambda: not isinstance(shadow.mirror, mirror.Mirror) or shadow.mirror.bytes == 0)


async def test_a_shadow_that_leaves_frees_what_waits(held: tuple[Servable, Servable, Gated, Mirrors]) -> None:
    primary, shadow, _, mirrors = held
    await asyncio.gather(*(primary.submit(x(i), None, FAR) for i in range(4)))
    await until(lambda: shadow.in_flight == 1)
    left = shadow.mirror
    assert isinstance(left, mirror.Mirror)
    mirrors.follow([(primary.planned, primary)])
    assert primary.mirrors == ()
    await until(lambda: shadow.in_flight == 0 and left.waiting == 0)
    assert left.bytes == 0
    assert (await primary.submit(x(9), None, FAR))[0][0, 0] == 9
    assert left.waiting == 0


async def test_failures_of_a_shadow_are_counted_by_reason(tmp_path: Path, follow: Follow) -> None:
    primary = servable(onnx_models.identity(), tmp_path)
    plans = [replace(shadow_plan(limits=Limits(request_timeout=0.1)), version=str(n)) for n in range(2, 6)]
    wrong = threaded(onnx_models.identity(shape=("n", 4)), tmp_path, plans[0])
    other = threaded(onnx_models.add(), tmp_path, plans[1])
    slow, session = gated(onnx_models.identity(), tmp_path, plans[2])
    failing = threaded(onnx_models.identity(), tmp_path, plans[3])

    def fail(*_: Any) -> Any:
        raise RuntimeError("a defect")

    failing.session.run = fail  # type: ignore[method-assign,assignment]
    follow(primary, wrong, other, slow, failing)
    assert (await primary.submit(x(1), None, FAR))[0][0, 0] == 1
    await until(lambda: count(wrong, Outcome.REFUSED) == 1 and count(other, Outcome.REFUSED) == 1)
    await until(lambda: count(slow, Outcome.TIMEOUT) == 1)
    await until(lambda: count(failing, Outcome.FAILED) == 1)
    session.gate.set()


@pytest.mark.parametrize(
    ("model", "outcome"),
    [(onnx_models.mean_of_all(), Outcome.SHAPE), (onnx_models.cumsum_rows(), Outcome.COMPARED)],
)
async def test_outputs_of_another_shape(tmp_path: Path, follow: Follow, model: bytes, outcome: Outcome) -> None:
    primary = servable(onnx_models.identity(), tmp_path)
    shadow = servable(model, tmp_path, shadow_plan())
    follow(primary, shadow)
    await primary.submit(x(1, 2), None, FAR)
    await until(lambda: count(shadow, outcome) == 1)


async def test_a_share_of_the_requests(tmp_path: Path, follow: Follow) -> None:
    primary = servable(onnx_models.identity(), tmp_path)
    shadow = servable(onnx_models.identity(), tmp_path, shadow_plan())
    follow(primary, shadow, share=30)
    for _ in range(100):
        await asyncio.gather(*(primary.submit(x(1), None, FAR) for _ in range(10)))
        await until(lambda: isinstance(shadow.mirror, mirror.Mirror) and shadow.mirror.waiting == 0)
    assert 200 < count(shadow, Outcome.COMPARED) < 400  # seven standard deviations
    assert count(shadow, Outcome.DROPPED) == 0


async def test_no_share_is_no_shadow(tmp_path: Path, follow: Follow) -> None:
    primary = servable(onnx_models.identity(), tmp_path)
    shadow = servable(onnx_models.identity(), tmp_path, shadow_plan())
    follow(primary, shadow, share=0)
    assert primary.mirrors == ()


async def test_primaries_go_first_but_not_for_ever(
    tmp_path: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, session = gated(onnx_models.identity(), tmp_path, rows=1)
    shadow = servable(onnx_models.identity(), tmp_path, shadow_plan())
    follow(primary, shadow)
    primary.mirrors[0].offer("1", ("y",), [(x(1), [x(1)["x"]])])
    waiting = [primary.submit(x(i), None, FAR) for i in range(3)]
    await until(lambda: session.runs == [1])
    for _ in range(20):
        await asyncio.sleep(0)
    assert primary.waiting
    assert count(shadow, Outcome.COMPARED) == 0
    await until(lambda: count(shadow, Outcome.COMPARED) == 1)  # its patience is over
    assert primary.waiting
    session.gate.set()
    await asyncio.gather(*waiting)


async def test_a_shadow_that_is_promoted_answers_as_others(tmp_path: Path, follow: Follow) -> None:
    metrics = Metrics()
    primary = servable(onnx_models.identity(), tmp_path, metrics=metrics)
    shadow = servable(onnx_models.identity(), tmp_path, shadow_plan(), metrics)
    mirrors = follow(primary, shadow)
    mirrors.follow([(primary.planned, primary), (replace(shadow.planned, role=Role.CANDIDATE), shadow)])
    assert (shadow.compared, primary.mirrors) == ((), ())
    await shadow.submit(x(1), None, FAR)
    found = metrics.find("m", "2")
    assert found is not None
    assert (found.success, found.pending) == (1, 0)
    assert list(mirrors.lines()) == []
