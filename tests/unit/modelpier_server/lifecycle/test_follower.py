"""What a server holds, reports and serves as plans come and steps succeed or fail."""

from __future__ import annotations

import asyncio

import pytest

from modelpier_server.contract import FailureReason, ModelState, Role
from modelpier_server.errors import ModelError, NotFound, Unavailable
from modelpier_server.runtime import memory

from .conftest import DIGEST, OTHER, Bench, World, model

READY, FAILED, LOADED = ModelState.READY, ModelState.FAILED, ModelState.LOADED


def failure(reason: FailureReason = FailureReason.MODEL_INVALID) -> ModelError:
    return ModelError(reason, "because")


async def test_a_model_comes_up_step_by_step(bench: Bench, world: World) -> None:
    holds = {step: world.hold(step, "a") for step in ("fetch", "load", "warm")}
    bench.apply(model())
    for step, state in (("fetch", "downloading"), ("load", "loading"), ("warm", "warming")):
        await bench.reach(a=ModelState(state))
        assert not bench.catalog.ready
        with pytest.raises(Unavailable):
            bench.catalog.find("m")
        holds[step].set()
    await bench.reach(a=READY)
    report = bench.report("a")
    assert (report.digest, report.size_bytes, report.provider) == (DIGEST, 123, "CPUExecutionProvider")
    assert set(report.timings) == {"download", "load", "warm_up"}
    assert report.inputs[0].name == "x"
    assert bench.catalog.ready
    assert bench.catalog.find("m") is world.made[0]


async def test_no_plan_and_an_empty_plan_are_never_ready(bench: Bench) -> None:
    assert not bench.catalog.ready
    bench.apply()
    assert not bench.catalog.ready
    with pytest.raises(NotFound):
        bench.catalog.find("m")


async def test_nothing_is_served_before_its_digest_is_pinned(bench: Bench, world: World) -> None:
    bench.apply(model(digest=None))
    await bench.reach(a=LOADED)
    assert bench.report("a").digest == DIGEST
    assert not bench.catalog.ready
    with pytest.raises(Unavailable):
        bench.catalog.find("m")
    bench.apply(model(digest=DIGEST))
    assert bench.state("a") is READY
    assert world.log.count(("load", "a")) == 1


async def test_another_digest_is_pinned_than_was_loaded(bench: Bench, world: World) -> None:
    bench.apply(model(digest=None))
    await bench.reach(a=LOADED)
    bench.apply(model(digest=OTHER))
    assert bench.report("a").reason is FailureReason.DIGEST_MISMATCH
    with pytest.raises(Unavailable):
        bench.catalog.find("m")
    await bench.until(lambda: world.made[0].closed)
    assert bench.follower.fatal.done()


async def test_weights_and_digests_touch_nothing_else(bench: Bench, world: World) -> None:
    bench.apply(model("a", weight=90), model("b", weight=10, role=Role.CANDIDATE))
    await bench.reach(a=READY, b=READY)
    before = list(world.log)
    bench.apply(model("a", weight=10), model("b", weight=90))
    assert world.log == before
    assert [bench.state(r) for r in "ab"] == [READY, READY]


async def test_a_dropped_model_is_drained_then_unloaded(bench: Bench, world: World) -> None:
    bench.apply(model("a"), model("b", name="n"))
    await bench.reach(a=READY, b=READY)
    old = bench.catalog.find("m")
    old.in_flight = 1
    bench.apply(model("b", name="n"))
    with pytest.raises(NotFound):
        bench.catalog.find("m")
    assert bench.catalog.ready
    await bench.reach(a=ModelState.DRAINING)
    assert not old.closed
    old.in_flight = 0
    await bench.until(lambda: bench.state("a") is None)
    assert (old.closed, old.drained, world.released) == (True, 2.0, [DIGEST])


async def test_swap_of_revisions_is_atomic(bench: Bench, world: World) -> None:
    """Old served until the plan flips, new from then on: never neither, never an error."""
    bench.apply(model("a"))
    await bench.reach(a=READY)
    bench.apply(model("a"), model("b", weight=0, role=Role.CANDIDATE))
    while bench.state("b") is not READY:
        assert bench.catalog.find("m").planned.revision == "a"
        await bench.board.wait(bench.board.serial, 0.01)
    assert {bench.catalog.find("m").planned.revision for _ in range(9)} == {"a"}
    bench.apply(model("b"))
    assert {bench.catalog.find("m").planned.revision for _ in range(9)} == {"b"}


async def test_new_waits_for_the_old_one_to_go(bench: Bench, world: World) -> None:
    """Both may not fit; the download need not wait."""
    bench.apply(model("a"))
    await bench.reach(a=READY)
    world.made[0].in_flight = 1
    bench.apply(model("b"))
    await bench.until(lambda: bench.board.records["b"].fetched)
    assert ("load", "b") not in world.log
    world.made[0].in_flight = 0
    await bench.reach(b=READY)
    assert world.log.index(("close", "a")) < world.log.index(("load", "b"))


async def test_a_candidate_that_fails_leaves_the_pod_ready(bench: Bench, world: World) -> None:
    world.faults["load", "b"] = [failure()]
    bench.apply(model("a", weight=50), model("b", weight=50, role=Role.CANDIDATE))
    await bench.reach(a=READY, b=FAILED)
    assert bench.catalog.ready
    assert {bench.catalog.find("m").planned.revision for _ in range(10)} == {"a"}
    assert (bench.report("b").reason, bench.report("b").message) == (FailureReason.MODEL_INVALID, "because")
    assert not bench.follower.fatal.done()


async def test_a_candidate_that_does_not_fit_is_not_loaded(
    bench: Bench, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "room", lambda: memory.Room(left=3 << 20, limit=64 << 20))
    bench.apply(model("a"), model("b", weight=0, role=Role.CANDIDATE))
    await bench.reach(a=READY, b=FAILED)
    assert bench.report("b").reason is FailureReason.OUT_OF_MEMORY
    assert "3 MiB of the container's 64 MiB are left" in bench.report("b").message
    assert ("load", "b") not in world.log
    assert bench.catalog.ready


async def test_a_candidate_that_fits_is_loaded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "room", lambda: memory.Room(left=50 << 20, limit=64 << 20))
    bench.apply(model("a"), model("b", weight=0, role=Role.CANDIDATE))
    await bench.reach(a=READY, b=READY)


async def test_all_weight_on_a_failed_candidate_falls_back(bench: Bench, world: World) -> None:
    world.faults["warm", "b"] = [failure()]
    bench.apply(model("a", weight=0), model("b", weight=100, role=Role.CANDIDATE))
    await bench.reach(a=READY, b=FAILED)
    assert bench.catalog.find("m").planned.revision == "a"
    assert next(s for s in world.made if s.planned.revision == "b").closed


async def test_a_candidate_without_weight_serves_only_by_version(bench: Bench) -> None:
    bench.apply(model("a", weight=0, role=Role.CANDIDATE))
    await bench.reach(a=READY)
    assert bench.catalog.find("m", "a").planned.revision == "a"
    with pytest.raises(Unavailable):
        bench.catalog.find("m")


async def test_a_required_failure_ends_a_process_that_serves_nothing(bench: Bench, world: World) -> None:
    world.faults["fetch", "a"] = [failure(FailureReason.DOWNLOAD_FORBIDDEN)]
    bench.apply(model("a"))
    fatal = await asyncio.wait_for(bench.follower.fatal, 5)
    assert (fatal.reason, fatal.message, fatal.revision) == (FailureReason.DOWNLOAD_FORBIDDEN, "because", "a")


async def test_a_required_failure_beside_a_served_model_is_reported(bench: Bench, world: World) -> None:
    world.faults["load", "a"] = [failure()]
    bench.apply(model("a"), model("b", name="n"))
    await bench.reach(a=FAILED, b=READY)
    assert not bench.catalog.ready
    assert bench.catalog.find("n")
    assert not bench.follower.fatal.done()


async def test_it_waits_for_others_before_it_gives_up(bench: Bench, world: World) -> None:
    world.faults["load", "a"], world.faults["load", "b"] = [failure()], [failure()]
    hold = world.hold("fetch", "b")  # one model is loaded at a time: "a" must not wait for "b"
    bench.apply(model("a"), model("b", name="n"))
    await bench.reach(a=FAILED)
    assert not bench.follower.fatal.done()
    hold.set()
    assert (await asyncio.wait_for(bench.follower.fatal, 5)).revision == "a"


async def test_passing_faults_are_tried_again_within_a_limit(bench: Bench, world: World) -> None:
    failed = FailureReason.DOWNLOAD_FAILED
    world.faults["fetch", "a"] = [failure(failed)] * 2
    world.faults["fetch", "b"] = [failure(failed) for _ in range(9)]
    bench.apply(model("a"), model("b", role=Role.CANDIDATE))
    await bench.reach(a=READY, b=FAILED)
    assert world.log.count(("fetch", "a")) == 3
    assert world.log.count(("fetch", "b")) == 5, "nobody waits for a candidate"
    assert bench.report("a").reason is None
    assert bench.report("b").reason is failed


async def test_what_cannot_pass_is_not_tried_again(bench: Bench, world: World) -> None:
    world.faults["fetch", "a"] = [failure(FailureReason.MODEL_NOT_FOUND)]
    bench.apply(model("a"))
    await bench.reach(a=FAILED)
    assert world.log == [("fetch", "a")]


async def test_a_failed_model_is_tried_again_when_its_plan_changes(bench: Bench, world: World) -> None:
    world.faults["load", "b"] = [failure()]
    bench.apply(model("a"), model("b", role=Role.CANDIDATE))
    await bench.reach(a=READY, b=FAILED)
    bench.apply(model("a"), model("b", role=Role.CANDIDATE, weight=5))
    assert bench.state("b") is FAILED
    bench.apply(model("a"), model("b", role=Role.REQUIRED))
    await bench.reach(b=READY)


async def test_another_uri_under_the_same_revision_is_another_load(bench: Bench, world: World) -> None:
    bench.apply(model("a"))
    await bench.reach(a=READY)
    world.digests["/new.onnx"] = OTHER
    bench.apply(model("a", uri="/new.onnx", digest=OTHER))
    await bench.until(lambda: world.made[0].closed)
    await bench.reach(a=READY)
    assert bench.report("a").digest == OTHER


async def test_a_model_dropped_while_it_downloads(bench: Bench, world: World) -> None:
    world.hold("fetch", "a")
    bench.apply(model("a"), model("b", name="n"))
    await bench.reach(a=ModelState.DOWNLOADING, b=READY)
    bench.apply(model("b", name="n"))
    await bench.until(lambda: bench.state("a") is None)
    assert ("load", "a") not in world.log


async def test_models_dropped_while_they_load_do_not_wait_for_each_other(bench: Bench, world: World) -> None:
    holds = [world.hold("load", "a"), world.hold("load", "b")]
    bench.apply(model("a"), model("b"))
    await bench.until(lambda: ModelState.LOADING in {bench.state("a"), bench.state("b")})
    bench.apply(model("c"))
    for hold in holds:
        hold.set()
    await bench.reach(c=READY)
    assert all(s.closed for s in world.made if s.planned.revision != "c")
    assert {m.revision for m in bench.board.report().models} == {"c"}


async def test_downloads_and_loads_are_bounded(bench: Bench, world: World) -> None:
    revisions = [f"r{i}" for i in range(6)]
    bench.apply(*(model(r, name=r) for r in revisions))
    await bench.reach(**dict.fromkeys(revisions, READY))
    assert world.most["fetch"] <= 2
    assert world.most["load"] == world.most["warm"] == 1


async def test_an_unexpected_error_stays_with_its_model(
    bench: Bench, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.faults["warm", "b"] = [ZeroDivisionError("oops")]
    bench.apply(model("a"), model("b", role=Role.CANDIDATE))
    await bench.reach(a=READY, b=FAILED)
    assert "ZeroDivisionError" in bench.report("b").message


async def test_draining_is_unready_and_still_serves(bench: Bench) -> None:
    bench.apply(model("a"))
    await bench.reach(a=READY)
    bench.follower.drain()
    assert (bench.catalog.ready, bench.catalog.live, bench.board.report().ready) == (False, True, False)
    assert bench.catalog.find("m")


async def test_unused_models_are_swept_once_all_is_at_rest(bench: Bench, world: World) -> None:
    bench.apply(model("a"))
    await bench.reach(a=READY)
    await bench.until(lambda: world.sweeps == 1)
    bench.apply(model("b"))
    await bench.reach(b=READY)
    await bench.until(lambda: world.sweeps == 2)


async def test_a_laptop_pins_what_it_loads_and_keeps_its_cache(laptop: Bench, world: World) -> None:
    laptop.apply(model("a", digest=None), model("b", digest=DIGEST, name="n"))
    await laptop.reach(a=READY, b=READY)
    assert laptop.catalog.ready
    assert world.sweeps == 0


async def test_any_failure_ends_a_laptop(laptop: Bench, world: World) -> None:
    world.faults["load", "b"] = [failure()]
    laptop.apply(model("a"), model("b", name="n"))
    assert (await asyncio.wait_for(laptop.follower.fatal, 5)).revision == "b"


async def test_the_report_follows_the_order_of_the_plan(bench: Bench) -> None:
    bench.apply(model("a"), model("b"))
    bench.apply(model("b"), model("a"), model("c"))
    assert [m.revision for m in bench.board.report().models] == ["b", "a", "c"]


async def test_a_refused_plan_keeps_the_held_one(bench: Bench) -> None:
    bench.apply(model("a"))
    await bench.reach(a=READY)
    bench.follower.refuse("plan.models: broken")
    report = bench.board.report()
    assert (report.plan_error, report.generation, report.ready) == ("plan.models: broken", 1, True)
    bench.apply(model("a"))
    assert bench.board.report().plan_error == ""


async def test_what_is_required_is_loaded_before_any_candidate(world: World, bench: Bench) -> None:
    hold = world.hold("fetch", "a")
    bench.apply(model("b", role=Role.CANDIDATE), model("a"))
    await bench.until(lambda: world.now.get("fetch") == 1 and ("fetch", "b") in world.log)
    hold.set()
    await bench.reach(a=ModelState.READY, b=ModelState.READY)
    assert [revision for step, revision in world.log if step in {"load", "warm"}] == ["a", "a", "b", "b"]


async def test_a_candidate_that_waits_for_its_turn_can_be_dropped(world: World, bench: Bench) -> None:
    hold = world.hold("fetch", "a")
    bench.apply(model("b", role=Role.CANDIDATE), model("a"))
    await bench.until(lambda: ("fetch", "b") in world.log and world.now.get("fetch") == 1)
    bench.apply(model("a"))
    await bench.until(lambda: bench.state("b") is None)
    hold.set()
    await bench.reach(a=ModelState.READY)


async def test_candidates_that_become_required_do_not_wait_for_each_other(world: World, bench: Bench) -> None:
    hold = world.hold("fetch", "a")
    bench.apply(model("b", role=Role.CANDIDATE), model("c", role=Role.CANDIDATE), model("a"))
    await bench.until(lambda: {("fetch", "b"), ("fetch", "c"), ("fetch", "a")} <= {*world.log})
    bench.apply(model("b"), model("c"), model("a"))
    await bench.reach(b=ModelState.READY, c=ModelState.READY)
    hold.set()
    await bench.reach(a=ModelState.READY)


async def test_a_shadow_is_loaded_and_answers_nobody(world: World, bench: Bench) -> None:
    bench.apply(model("a"), model("b", role=Role.SHADOW, weight=10))
    await bench.reach(a=ModelState.READY, b=ModelState.READY)
    assert {bench.catalog.find("m").planned.revision for _ in range(20)} == {"a"}
    with pytest.raises(NotFound):
        bench.catalog.find("m", "b")
    assert [r.revision for r in bench.catalog.describe()] == ["a"]
    assert [s.planned.revision for s in bench.catalog.serving()] == ["a"]
    assert [(p.revision, p.role) for p, _ in world.mirrored[-1]] == [("a", Role.REQUIRED), ("b", Role.SHADOW)]
    bench.apply(model("a"), model("b", role=Role.CANDIDATE, weight=100))  # promoted as it is
    assert {bench.catalog.find("m").planned.revision for _ in range(20)} == {"a", "b"}
    assert len(world.made) == 2
    bench.apply(model("a"))
    assert [p.revision for p, _ in world.mirrored[-1]] == ["a"], "told before it is closed"
    await bench.until(lambda: bench.state("b") is None)


async def test_a_shadow_alone_makes_nothing_ready(bench: Bench) -> None:
    bench.apply(model("b", role=Role.SHADOW))
    await bench.reach(b=ModelState.READY)
    assert not bench.catalog.ready
    with pytest.raises(NotFound):
        bench.catalog.find("m")


@pytest.mark.parametrize("step", ["fetch", "load", "warm"])
async def test_a_shadow_that_fails_leaves_the_pod_ready(world: World, laptop: Bench, step: str) -> None:
    world.faults[step, "b"] = [ModelError(FailureReason.MODEL_INVALID, "no model")]
    laptop.apply(model("a"), model("b", role=Role.SHADOW))
    await laptop.reach(a=ModelState.READY, b=ModelState.FAILED)
    assert laptop.catalog.ready
    assert not laptop.follower.fatal.done()
    assert laptop.report("b").reason is FailureReason.MODEL_INVALID
