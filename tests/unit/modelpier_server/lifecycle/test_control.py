"""Loading and unloading on request of a client, on a laptop."""

from __future__ import annotations

import asyncio

import pytest

from modelpier_server.contract import FailureReason, ModelState
from modelpier_server.errors import InvalidRequest, ModelError, NotFound, Unavailable
from modelpier_server.lifecycle.control import Control

from .conftest import Bench, FakeServable, World, model


@pytest.fixture
async def control(laptop: Bench) -> Control[FakeServable]:
    """Models `a` and `b`, both serving."""
    control = Control(laptop.follower, [model("a", name="a", version="1"), model("b", name="b", version="1")])
    control.begin()
    await laptop.reach(a=ModelState.READY, b=ModelState.READY)
    return control


async def test_unload_and_load(laptop: Bench, control: Control[FakeServable]) -> None:
    await control.unload("a")
    with pytest.raises(NotFound):
        laptop.catalog.find("a")
    assert laptop.catalog.ready
    await laptop.until(lambda: control.unloaded() == [("a", "1")])
    await control.unload("a")  # again: nothing to do
    await control.load("a")
    assert laptop.catalog.find("a").planned.uri == "/a.onnx"
    assert control.unloaded() == []
    assert laptop.catalog.ready


async def test_while_it_drains_it_is_not_offered_for_loading(laptop: Bench, control: Control[FakeServable]) -> None:
    served = laptop.catalog.find("a")
    served.in_flight = 1
    await control.unload("a")
    assert control.unloaded() == []
    assert laptop.state("a") is ModelState.DRAINING
    served.in_flight = 0
    await laptop.until(lambda: control.unloaded() == [("a", "1")])


async def test_everything_unloaded_is_not_ready(laptop: Bench, control: Control[FakeServable]) -> None:
    await control.unload("a")
    await control.unload("b")
    assert not laptop.catalog.ready
    assert not laptop.follower.fatal.done()


async def test_loading_again_takes_over_when_it_is_ready(
    laptop: Bench, world: World, control: Control[FakeServable]
) -> None:
    hold = world.hold("load", "a-load-1")
    old = laptop.catalog.find("a")
    loading = asyncio.create_task(control.load("a"))
    await laptop.reach(**{"a-load-1": ModelState.LOADING})
    assert laptop.catalog.find("a") is old
    assert laptop.catalog.ready
    hold.set()
    await loading
    new = laptop.catalog.find("a")
    assert new is not old
    await laptop.until(lambda: old.closed)
    assert not new.closed


async def test_one_at_a_time_per_model(laptop: Bench, world: World, control: Control[FakeServable]) -> None:
    hold = world.hold("fetch", "a-load-1")
    loading = asyncio.create_task(control.load("a"))
    await laptop.reach(**{"a-load-1": ModelState.DOWNLOADING})
    for action in (control.load, control.unload):
        with pytest.raises(Unavailable, match="already"):
            await action("a")
    await control.unload("b")
    hold.set()
    await loading
    await control.unload("a")


async def test_what_cannot_be_loaded_leaves_the_old_one(
    laptop: Bench, world: World, control: Control[FakeServable]
) -> None:
    world.faults[("load", "a-load-1")] = [ModelError(FailureReason.MODEL_INVALID, "no ONNX")]
    old = laptop.catalog.find("a")
    with pytest.raises(InvalidRequest, match="ModelInvalid: no ONNX"):
        await control.load("a")
    assert laptop.catalog.find("a") is old
    assert not old.closed
    assert not laptop.follower.fatal.done()  # the process goes on
    assert laptop.catalog.ready
    await control.load("a")
    assert laptop.catalog.find("a") is not old


async def test_a_caller_that_leaves_does_not_stop_it(
    laptop: Bench, world: World, control: Control[FakeServable]
) -> None:
    hold = world.hold("load", "a-load-1")
    old = laptop.catalog.find("a")
    loading = asyncio.create_task(control.load("a"))
    await laptop.reach(**{"a-load-1": ModelState.LOADING})
    loading.cancel()
    hold.set()
    await laptop.until(lambda: laptop.catalog.find("a") is not old and old.closed)
    await control.unload("a")


async def test_the_end_of_the_process_meanwhile(laptop: Bench, world: World, control: Control[FakeServable]) -> None:
    hold = world.hold("fetch", "a-load-1")
    loading = asyncio.create_task(control.load("a"))
    await laptop.reach(**{"a-load-1": ModelState.DOWNLOADING})
    laptop.apply()
    hold.set()
    with pytest.raises(Unavailable, match="out of service"):
        await loading


async def test_only_what_was_named_at_the_start(control: Control[FakeServable]) -> None:
    for action in (control.load, control.unload):
        with pytest.raises(NotFound, match="there are a, b"):
            await action("zz")


async def test_a_start_that_fails_is_still_final(laptop: Bench, world: World) -> None:
    world.faults[("load", "a")] = [ModelError(FailureReason.MODEL_INVALID, "no ONNX")]
    Control(laptop.follower, [model("a")]).begin()
    failure = await asyncio.wait_for(laptop.follower.fatal, 5)
    assert failure.reason is FailureReason.MODEL_INVALID
