"""A model whose own process ends: loaded again, given up, or left out."""

from __future__ import annotations

import asyncio

import pytest

from modelpier_server.contract import FailureReason, ModelState, Options, Role
from modelpier_server.errors import InferenceFailed, ModelError, Unavailable
from modelpier_server.lifecycle import bringup

from .conftest import DIGEST, Bench, FakeServable, World, model

ISOLATED = Options(isolated=True)
ENDED = "the model's process was ended by SIGSEGV"


def crash(servable: FakeServable) -> None:
    lost = servable.session.lost
    assert lost is not None
    lost.set_result(ENDED)


async def test_what_production_needs_is_loaded_again_without_another_download(world: World, bench: Bench) -> None:
    bench.apply(model("a", options=ISOLATED), model("b", name="other"))
    await bench.reach(a=ModelState.READY, b=ModelState.READY)
    first = next(servable for servable in world.made if servable.planned.revision == "a")
    hold = world.hold("load", "a")
    crash(first)
    await bench.reach(a=ModelState.LOADING)
    assert bench.report("a").reason is FailureReason.MODEL_CRASHED
    assert ENDED in bench.report("a").message
    assert not bench.catalog.ready
    assert bench.catalog.find("other").planned.revision == "b", "its neighbour goes on"
    with pytest.raises(Unavailable) as error:
        bench.catalog.find("m")
    assert error.value.retry_after
    hold.set()
    await bench.reach(a=ModelState.READY)
    assert first.closed
    assert bench.report("a").reason is None
    steps = [step for step, revision in world.log if revision == "a"]
    assert steps == ["fetch", "load", "warm", "close", "load", "warm"]
    assert world.released == []


async def test_a_candidate_that_crashes_stays_out_until_its_plan_changes(world: World, bench: Bench) -> None:
    candidate = model("b", options=ISOLATED, role=Role.CANDIDATE, weight=10)
    bench.apply(model("a", weight=90), candidate)
    await bench.reach(a=ModelState.READY, b=ModelState.READY)
    crash(next(servable for servable in world.made if servable.planned.revision == "b"))
    await bench.reach(b=ModelState.FAILED)
    assert bench.report("b").reason is FailureReason.MODEL_CRASHED
    assert bench.catalog.ready
    assert {bench.catalog.find("m").planned.revision for _ in range(100)} == {"a"}
    bench.apply(model("a", weight=50), model("b", options=ISOLATED, role=Role.CANDIDATE, weight=50))
    await bench.until(lambda: world.released)
    assert bench.state("b") is ModelState.FAILED
    bench.apply(model("a"), model("b", options=Options(isolated=True, threads=1), role=Role.CANDIDATE))
    await bench.reach(b=ModelState.READY)


async def test_one_that_crashes_again_and_again_is_given_up(world: World, bench: Bench) -> None:
    bench.apply(model("a", options=ISOLATED))
    for number in range(bringup.MOST_RELOADS + 1):
        await bench.until(lambda expected=number + 1: len(world.made) == expected)  # type: ignore[misc]
        await bench.reach(a=ModelState.READY)
        crash(world.made[-1])
        await bench.until(lambda: bench.state("a") is not ModelState.READY)
    await bench.reach(a=ModelState.FAILED)
    assert (await bench.follower.fatal).reason is FailureReason.MODEL_CRASHED


async def test_a_process_that_ends_while_its_model_is_unloaded_changes_nothing(world: World, bench: Bench) -> None:
    bench.apply(model("a", options=ISOLATED))
    await bench.reach(a=ModelState.READY)
    world.made[0].in_flight = 1
    bench.apply(model("b"))
    await bench.reach(a=ModelState.DRAINING)
    crash(world.made[0])
    world.made[0].in_flight = 0
    await bench.until(lambda: bench.state("a") is None)
    await bench.reach(b=ModelState.READY)
    assert len(world.made) == 2


@pytest.mark.parametrize("told", [True, False], ids=["the probe fails", "the probe goes on without its runs"])
async def test_a_crash_during_the_warm_up_is_mended_like_any_other(world: World, bench: Bench, told: bool) -> None:
    world.ends_in_warm_up = bringup.MOST_RELOADS
    if told:
        world.faults["warm", "a"] = [InferenceFailed(ENDED) for _ in range(bringup.MOST_RELOADS)]
    bench.apply(model("a", options=ISOLATED))
    await bench.reach(a=ModelState.READY)
    assert len(world.made) == bringup.MOST_RELOADS + 1
    assert [servable.closed for servable in world.made] == [*[True] * bringup.MOST_RELOADS, False]
    assert [step for step, _ in world.log].count("fetch") == 1
    assert bench.report("a").reason is None
    assert world.released == []


async def test_crashes_count_at_whatever_step(world: World, bench: Bench) -> None:
    assert bringup.MOST_RELOADS == 3
    bench.apply(model("a", options=ISOLATED))
    await bench.reach(a=ModelState.READY)
    world.faults["load", "a"] = [ModelError(FailureReason.MODEL_CRASHED, f"{ENDED} while it loaded the model")] * 2
    world.ends_in_warm_up = 1
    crash(world.made[0])
    await bench.reach(a=ModelState.FAILED)
    assert bench.report("a").reason is FailureReason.MODEL_CRASHED
    assert bench.report("a").message == f"{ENDED} during the warm-up"
    assert [step for step, _ in world.log].count("load") == 1 + bringup.MOST_RELOADS


async def test_a_candidate_that_crashes_during_its_warm_up_stays_out(world: World, bench: Bench) -> None:
    bench.apply(model("a", weight=90))
    await bench.reach(a=ModelState.READY)
    world.ends_in_warm_up = 1
    bench.apply(model("a", weight=90), model("b", options=ISOLATED, role=Role.CANDIDATE, weight=10))
    await bench.reach(b=ModelState.FAILED)
    assert bench.report("b").reason is FailureReason.MODEL_CRASHED
    assert len(world.made) == 2
    assert bench.state("a") is ModelState.READY


async def test_a_crash_of_a_model_that_is_being_freed_leaves_it_failed(world: World, bench: Bench) -> None:
    bench.apply(model("a", digest=None, options=ISOLATED))
    await bench.reach(a=ModelState.LOADED)
    world.made[0].in_flight = 1
    bench.apply(model("a", digest=f"sha256:{'c' * 64}", options=ISOLATED))
    await bench.reach(a=ModelState.FAILED)
    crash(world.made[0])
    await asyncio.sleep(0)
    world.made[0].in_flight = 0
    await bench.until(lambda: world.released)
    record = bench.board.records["a"]
    assert record.task is not None
    await asyncio.wait({record.task})
    assert bench.state("a") is ModelState.FAILED
    assert bench.report("a").reason is FailureReason.DIGEST_MISMATCH


async def test_a_load_that_is_no_longer_wanted_ends_and_makes_room(world: World, bench: Bench) -> None:
    world.hold("load", "a")  # for ever
    bench.apply(model("a", options=ISOLATED))
    await bench.until(lambda: world.now.get("load"))
    bench.apply(model("b", options=ISOLATED))
    await bench.reach(b=ModelState.READY)
    assert bench.state("a") is None
    assert world.released == [DIGEST]
