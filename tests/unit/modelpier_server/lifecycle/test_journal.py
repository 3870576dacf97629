"""The crash journal: what stands in it when a process died, and what a follower makes of that."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelpier_server.contract import FailureReason, ModelState, Options, PlannedModel, Role
from modelpier_server.errors import ModelError
from modelpier_server.lifecycle import bringup, journal
from modelpier_server.lifecycle.board import Board
from modelpier_server.lifecycle.bringup import Again
from modelpier_server.lifecycle.catalog import Catalog
from modelpier_server.lifecycle.follower import Follower
from modelpier_server.lifecycle.journal import Journal, Step

from .conftest import DIGEST, OTHER, Bench, World, model

CANDIDATE = model("b", role=Role.CANDIDATE)


def died(folder: Path, act: Callable[[Journal], object]) -> Journal:
    """The journal of the process after one that did `act` and then died."""
    act(Journal(folder))
    return Journal(folder)


def at(planned: PlannedModel, step: Step = Step.LOADING) -> Callable[[Journal], object]:
    return lambda found: found.begin(planned, DIGEST, step)


def crash(journal: Journal, planned: PlannedModel) -> str:
    found = journal.past(planned)
    return "" if found is None else found.text


@pytest.mark.parametrize(("step", "words"), [(Step.LOADING, "while it loaded"), (Step.WARMING, "warmed the model up")])
def test_who_was_at_work_is_known(tmp_path: Path, step: Step, words: str) -> None:
    after = died(tmp_path, at(CANDIDATE, step))
    assert words in crash(after, CANDIDATE)
    assert crash(after, model("c")) == ""
    assert words in crash(Journal(tmp_path), CANDIDATE), "however often it is started"


def test_what_has_come_back_is_not_blamed(tmp_path: Path) -> None:
    def act(found: Journal) -> None:
        found.begin(CANDIDATE, DIGEST, Step.LOADING)
        found.end("b")

    assert crash(died(tmp_path, act), CANDIDATE) == ""


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (replace(CANDIDATE, weight=7), True),
        (replace(CANDIDATE, digest=None), True),
        (replace(CANDIDATE, digest=OTHER), False),
        (replace(CANDIDATE, role=Role.REQUIRED), False),
        (replace(CANDIDATE, options=Options(threads=1)), False),
        (replace(CANDIDATE, revision="c"), False),
    ],
)
def test_another_plan_for_it_is_another_try(tmp_path: Path, other: PlannedModel, same: bool) -> None:
    assert bool(crash(died(tmp_path, at(CANDIDATE)), other)) is same


def test_a_plan_without_it_makes_it_forgotten_unless_it_is_an_old_one(tmp_path: Path) -> None:
    def act(found: Journal) -> None:
        found.keep([CANDIDATE], 5)
        found.begin(CANDIDATE, DIGEST, Step.LOADING)

    after = died(tmp_path, act)
    after.keep([], 4)
    assert crash(after, CANDIDATE)
    after.keep([], 6)
    assert not crash(after, CANDIDATE)


@pytest.mark.parametrize("running", [True, False])
def test_a_candidate_that_serves_is_blamed_for_its_runs_alone(tmp_path: Path, running: bool) -> None:
    def act(found: Journal) -> None:
        found.begin(CANDIDATE, DIGEST, Step.WARMING)
        mark = found.mark(CANDIDATE)
        assert mark is not None
        found.serve(CANDIDATE, DIGEST)
        with mark:
            pass
        if running:
            mark.__enter__()

    assert bool(crash(died(tmp_path, act), CANDIDATE)) is running


def test_runs_at_once_share_a_mark(tmp_path: Path) -> None:
    mark = Journal(tmp_path).mark(CANDIDATE)
    assert mark is not None
    mark.__enter__()
    with mark:
        pass
    assert (tmp_path / "active").read_bytes()[0] == 1
    mark.__exit__()
    assert (tmp_path / "active").read_bytes()[0] == 0


def test_marks_of_another_start_of_the_machine_mean_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(found: Journal) -> None:
        mark = found.mark(CANDIDATE)
        assert mark is not None
        found.serve(CANDIDATE, DIGEST)
        mark.__enter__()
        monkeypatch.setattr(journal, "_boot", lambda: "another")

    assert crash(died(tmp_path, act), CANDIDATE) == ""


def test_required_models_run_without_a_mark(tmp_path: Path) -> None:
    assert Journal(tmp_path).mark(model("a")) is None


def test_an_orderly_end_blames_nobody_but_who_hangs(tmp_path: Path) -> None:
    def act(found: Journal) -> None:
        found.begin(CANDIDATE, DIGEST, Step.LOADING)
        found.close([(model("a"), DIGEST)])
        found.close()
        found.begin(CANDIDATE, DIGEST, Step.WARMING)

    after = died(tmp_path, act)
    assert crash(after, CANDIDATE) == ""
    assert "did not end" in crash(after, model("a"))


def test_crashes_are_counted_and_kept_within_bounds(tmp_path: Path) -> None:
    for _ in range(journal.MOST_CRASHES + 3):
        after = died(tmp_path, at(model("a")))
    found = after.past(model("a"))
    assert found is not None
    assert len(found.at) == journal.MOST_CRASHES
    found = died(tmp_path, lambda it: it.begin(model("a"), OTHER, Step.LOADING)).past(model("a", digest=OTHER))
    assert found is not None
    assert len(found.at) == 1, "other bytes, another count"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"boot": ""}', b'{"boot":"","generation":0,"crashes":[{}]}'])
def test_a_journal_that_cannot_be_read_begins_anew(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "journal.json").write_bytes(text)
    assert crash(died(tmp_path, at(CANDIDATE)), CANDIDATE)


def test_a_volume_that_cannot_be_written_keeps_nobody_from_serving(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = Journal(tmp_path / "file" / "journal")
    found.begin(CANDIDATE, DIGEST, Step.LOADING)
    assert found.mark(CANDIDATE) is None
    found.serve(CANDIDATE, DIGEST)
    found.close()


# ------------------------------------------------------------------------------------------------ the follower
def bench(world: World, folder: Path) -> Bench:
    """A process with that journal."""
    made = Bench(world)
    made.board, made.catalog = Board(), Catalog()
    made.follower = Follower(
        world.tools(),
        made.catalog,
        made.board,
        trusting=False,
        drain=2.0,
        again=Again(3, 0.001, 0.002),
        journal=Journal(folder),
    )
    return made


async def test_a_candidate_that_took_the_process_down_stays_out_until_its_plan_changes(
    world: World, tmp_path: Path
) -> None:
    died(tmp_path, at(CANDIDATE))
    here = bench(world, tmp_path)
    here.apply(model("a"), CANDIDATE)
    await here.reach(a=ModelState.READY, b=ModelState.FAILED)
    report = here.report("b")
    assert report.reason is FailureReason.MODEL_CRASHED
    assert "while it loaded the model" in report.message
    assert "server.isolated" in report.message
    assert here.catalog.ready
    assert {revision for _, revision in world.log} == {"a"}, "not even fetched"
    here.apply(model("a"), replace(CANDIDATE, weight=3))
    assert here.state("b") is ModelState.FAILED
    here.apply(model("a"), replace(CANDIDATE, options=Options(threads=1)))
    await here.reach(b=ModelState.READY)
    await here.follower.close(0.0)


async def test_what_is_required_is_tried_again_with_a_limit(world: World, tmp_path: Path) -> None:
    for _ in range(bringup.MOST_RELOADS):
        died(tmp_path, at(model("a")))
    here = bench(world, tmp_path)
    here.apply(model("a"))
    await here.reach(a=ModelState.READY)
    await here.follower.close(0.0)
    died(tmp_path, at(model("a")))
    here = bench(world, tmp_path)
    here.apply(model("a"))
    failure = await here.follower.fatal
    assert (failure.reason, failure.revision) == (FailureReason.MODEL_CRASHED, "a")
    assert f"({bringup.MOST_RELOADS + 1} times)" in failure.message
    await here.follower.close(0.0)


async def test_what_is_required_gets_another_chance_after_a_while(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(bringup.MOST_RELOADS + 1):
        died(tmp_path, at(model("a")))
    monkeypatch.setattr(bringup, "CRASH_WINDOW", 0.0)
    here = bench(world, tmp_path)
    here.apply(model("a"))
    await here.reach(a=ModelState.READY)
    await here.follower.close(0.0)


@pytest.mark.parametrize(("step", "before"), [("load", Step.LOADING), ("warm", Step.WARMING)])
async def test_every_step_is_on_disk_while_it_lasts(world: World, tmp_path: Path, step: str, before: Step) -> None:
    hold = world.hold(step, "b")
    here = bench(world, tmp_path)
    here.apply(CANDIDATE)
    await here.until(lambda: world.now.get(step))
    (entry,) = json.loads((tmp_path / "journal.json").read_text())["working"]
    assert (entry["revision"], entry["digest"], entry["step"]) == ("b", DIGEST, before)
    hold.set()
    await here.reach(b=ModelState.READY)
    (entry,) = json.loads((tmp_path / "journal.json").read_text())["working"]
    assert entry["step"] == Step.SERVING
    await here.follower.close(0.0)


async def test_a_load_that_fails_has_come_back(world: World, tmp_path: Path) -> None:
    world.faults["load", "b"] = [ModelError(FailureReason.MODEL_INVALID, "no model")]
    here = bench(world, tmp_path)
    here.apply(CANDIDATE)
    await here.reach(b=ModelState.FAILED)
    assert crash(Journal(tmp_path), CANDIDATE) == ""
    await here.follower.close(0.0)


async def test_a_candidate_whose_own_process_crashed_stays_out_in_the_next_process(
    world: World, tmp_path: Path
) -> None:
    isolated = replace(CANDIDATE, options=Options(isolated=True))
    here = bench(world, tmp_path)
    here.apply(model("a"))
    await here.reach(a=ModelState.READY)
    world.ends_in_warm_up = 1
    here.apply(model("a"), isolated)
    await here.reach(b=ModelState.FAILED)
    record = here.board.records["b"]
    assert record.task is not None
    await record.task
    assert "saw the model's own process end" in crash(Journal(tmp_path), isolated)
    await here.follower.close(0.0)


async def test_a_pod_that_is_restarted_for_a_run_that_hangs_knows_of_which_model(world: World, tmp_path: Path) -> None:
    here = bench(world, tmp_path)
    here.apply(model("a"))
    await here.reach(a=ModelState.READY)
    world.made[0].hung = True
    here.follower.drain()
    assert "did not end" in crash(Journal(tmp_path), model("a"))
    await here.follower.close(0.0)
