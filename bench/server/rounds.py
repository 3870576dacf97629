"""The contest: for each model all contestants are started and measured in turn, round after round, so that whatever
else the machine does meets all of them. Used by __main__.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench.server.arena import Arena
from bench.server.client.load import GRPC
from bench.server.contestants import NOOP, OURS, Contestant
from bench.server.generator import GeneratorError
from bench.server.raw import Limit
from bench.server.results import RAW, Cell, Result, Results, split_between
from bench.server.running import NotRunning, Running
from bench.server.wires import Wire

CONCURRENCIES = (1, 16, 64, 256)
TARGETED = {"tabular": 64, "image": 16, "text": 16}
"""The concurrency for which each model has targets."""


@dataclass(frozen=True)
class Job:
    wire: Wire
    cell: Cell


def jobs(contestant: Contestant, model: str, *, full: bool) -> list[Job]:
    """By default what has a target; `full`: all forms of request at all concurrencies."""
    wires = contestant.wires.get(model, ())

    def job(wire: Wire, concurrency: int) -> Job:
        return Job(wire, Cell(contestant.name, model, wire.name, concurrency, main=wire is wires[0]))

    if full:
        return [job(wire, concurrency) for wire in wires for concurrency in CONCURRENCIES]
    found = [job(wire, TARGETED[model]) for wire in wires[:1]]
    if model == "tabular" and contestant.name in {OURS, NOOP}:
        found.insert(0, job(wires[0], 1))
    if model == "tabular":
        found += [job(wire, TARGETED[model]) for wire in wires[1:] if wire.name == GRPC]
    return found


def contest(arena: Arena, model: str, contestants: Sequence[Contestant], results: Results, *, full: bool) -> None:
    """All rounds of a model. Who is busy while idle is measured after the others are gone."""
    calm = [one for one in contestants if model in one.wires and not one.restless]
    arena.progress.say(f"{model}: looking for the best layout of ONNX Runtime")
    limit = Limit(arena.files(model)[model], model, arena.cores.server)
    results.notes[f"best layout, {model}"] = str(limit.layout)
    _together(arena, model, calm, results, limit, full=full)
    for one in contestants:
        if model in one.wires and one.restless:
            _together(arena, model, [one], results, None, full=full)


def _together(
    arena: Arena, model: str, contestants: Sequence[Contestant], results: Results, limit: Limit | None, *, full: bool
) -> None:
    with ExitStack() as stack:
        running = []
        for contestant in contestants:
            try:
                running.append(stack.enter_context(arena.running(contestant, model)))
            except NotRunning as error:
                results.left_out[f"{contestant.name}, {model}"] = str(error)
                arena.progress.say(f"{contestant.name} is left out for {model}: {error}")
        for number in range(1, arena.rounds + 1):
            if limit is not None:
                results.runs.append(_limit(arena, limit, model, number))
            for one in running:
                for job in jobs(one.contestant, model, full=full):
                    _one(arena, one, job, number, results)


def _limit(arena: Arena, limit: Limit, model: str, number: int) -> Result:
    found = limit.measure(arena.seconds)
    return Result(Cell(RAW, model, "none", TARGETED[model]), number, found.items, found.cpu)


def _one(arena: Arena, one: Running, job: Job, number: int, results: Results) -> None:
    seconds = arena.peers_seconds if one.contestant.peer else arena.seconds
    try:
        result = _measure(arena, one, job, number, seconds)
    except GeneratorError as error:
        results.left_out[f"{job.cell.contestant}, {job.cell.model}, {job.cell.wire}"] = f"{error}; {one.tail()}"
        return
    results.runs.append(result)
    arena.progress.say(
        f"{number}/{arena.rounds} {job.cell.model} {job.cell.wire} c={job.cell.concurrency} {job.cell.contestant}: "
        f"{result.rate:.0f}/s, {result.cpu:.0f} us"
    )


def _measure(arena: Arena, one: Running, job: Job, number: int, seconds: float) -> Result:
    model, truth, checked = job.cell.model, arena.truth, one.contestant.checked
    before = one.statistics(model)
    found = one.measure(job.wire, model, truth, job.cell.concurrency, seconds)
    outcome = found.outcome
    answered = outcome.answered
    shares = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
    return Result(
        job.cell,
        number,
        outcome.rate,
        found.cpu_per_request,
        {"mean": answered.mean, **{name: answered.percentile(share) for name, share in shares.items()}},
        client=outcome.busy,
        foreign=found.foreign_cores,
        failed=sum(outcome.other.values()),
        resets=outcome.resets,
        wrong=truth.wrong(model, job.wire, outcome.samples) if checked else 0,
        samples=len(outcome.samples) if checked else 0,
        split=split_between(before, one.statistics(model)),
    )
