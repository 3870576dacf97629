"""Whatever plans come, with whatever faults in between: the server ends at what the last one says."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from modelpier_server.contract import FailureReason, ModelState, PlannedModel, Role
from modelpier_server.errors import ModelError, NotFound, Unavailable

from .conftest import DIGEST, OTHER, Bench, World, model

planned = st.builds(
    model,
    st.sampled_from("abcd"),
    st.sampled_from([DIGEST, DIGEST, OTHER, None]),
    name=st.sampled_from("mn"),
    weight=st.integers(0, 3),
    role=st.sampled_from(Role),
    uri=st.sampled_from(["/1.onnx", "/2.onnx"]),
)
plans = st.lists(
    st.tuples(st.lists(planned, max_size=4, unique_by=lambda m: m.revision), st.integers(0, 3)), min_size=1, max_size=6
)
faults = st.lists(
    st.tuples(
        st.sampled_from(["fetch", "load", "warm"]),
        st.sampled_from("abcd"),
        st.sampled_from([FailureReason.DOWNLOAD_FAILED, FailureReason.MODEL_INVALID]),
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(plans, faults)
def test_the_last_plan_is_what_is_held(
    plans: list[tuple[list[PlannedModel], int]], faults: list[tuple[str, str, FailureReason]]
) -> None:
    asyncio.run(converge(plans, faults))


async def converge(plans: list[tuple[list[PlannedModel], int]], faults: list[tuple[str, str, FailureReason]]) -> None:
    world = World()
    for step, revision, reason in faults:
        world.faults.setdefault((step, revision), []).append(ModelError(reason, "because"))
    bench = Bench(world)
    for models, steps in plans:
        bench.apply(*models)
        check(bench)
        for _ in range(steps):
            await bench.board.wait(bench.board.serial, 0.005)
            check(bench)
    await bench.until(lambda: not bench.board.leaving and all(r.settled for r in bench.board.records.values()))
    await bench.until(lambda: not bench.follower._tasks)
    check(bench)
    last = plans[-1][0]
    assert list(bench.board.records) == [m.revision for m in last]
    for record in bench.board.records.values():
        assert record.state is expected(record.planned, record.state)
    alive = {id(r.servable) for r in bench.board.records.values() if r.state is not ModelState.FAILED}
    assert {id(s) for s in world.made if not s.closed} == alive  # nothing is leaked, nothing is closed under a caller
    await bench.follower.close(2.0)
    assert all(s.closed for s in world.made)
    fetched = Counter(step for step, _ in world.log)["load"]
    assert len(world.released) >= fetched  # every load gave its model back in the end


def expected(planned: PlannedModel, state: ModelState) -> ModelState:
    """By its digest alone; a fault may have come before."""
    if state is ModelState.FAILED or planned.digest == DIGEST:
        return ModelState.FAILED if state is ModelState.FAILED else ModelState.READY
    if planned.digest == OTHER:
        return ModelState.FAILED
    return state  # unpinned: loaded, or ready when an earlier plan had pinned the same load


def check(bench: Bench) -> None:
    """At every moment: only pinned, warm, open models of the plan are found; ready means all that is required."""
    records = bench.board.records.values()
    for record in records:
        name, version = record.planned.name, record.planned.version
        try:
            found = bench.catalog.find(name, version)
        except (NotFound, Unavailable):
            assert record.state is not ModelState.READY or record.planned.role is Role.SHADOW
        else:
            assert not found.closed
            assert found.planned.revision in bench.board.records
            assert bench.board.records[found.planned.revision].planned.role is not Role.SHADOW
        if record.state is ModelState.READY:
            assert record.digest == record.planned.digest or record.planned.digest is None
    required = [r for r in records if r.planned.role is Role.REQUIRED]
    answering = [r for r in records if r.planned.role is not Role.SHADOW]
    ready = any(r.state is ModelState.READY for r in answering) and all(r.state is ModelState.READY for r in required)
    assert bench.catalog.ready == ready
