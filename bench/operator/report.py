"""Turns the runs of both contestants into the table that is printed. Pure; used by __main__.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.operator import kinds
from bench.operator.phases import Burst, Cost, Reactions, percentile

OURS, THEIRS = "operator", "go"
WRITES_PER_OBJECT = len(kinds.CHILDREN) + 1
"""One per child and one of the status."""
CPU_SHARE, MEMORY_SHARE = 1.02, 1.35
"""The first targets (5 ms; 60 MB and 55 MB per 1,000) were set for five children, of which a Go controller took 4.9 ms
and 85 MB: what counts is the share of that."""


@dataclass(frozen=True)
class Run:
    """One contestant in one round."""

    contestant: str
    round: int
    load_average: tuple[float, float, float]
    burst: Burst
    rest: Cost
    restart: Cost
    reactions: Reactions


@dataclass(frozen=True)
class Row:
    """One figure of a run, and what ours must be. `limit` takes (ours, theirs, number of ModelDeployments)."""

    name: str
    value: Callable[[Run], float]
    target: str = ""
    limit: Callable[[float, float | None, int], bool | None] | None = None
    hard: bool = False
    """A count: the same on every machine, however busy. `--check` fails on it."""


@dataclass(frozen=True)
class Line:
    row: Row
    ours: float | None
    theirs: float | None
    passed: bool | None
    """None: no target, or nothing to compare with."""


def _at_most(limit: float) -> Callable[[float, float | None, int], bool]:
    return lambda ours, _, __: ours <= limit


def _exactly(number: float) -> Callable[[float, float | None, int], bool]:
    return lambda ours, _, __: ours == number


def _at_least_theirs(factor: float) -> Callable[[float, float | None, int], bool | None]:
    return lambda ours, theirs, _: None if theirs is None else ours >= factor * theirs


def _at_most_theirs(factor: float) -> Callable[[float, float | None, int], bool | None]:
    return lambda ours, theirs, _: None if theirs is None else ours <= factor * theirs


def _per_object(amount: Callable[[Run], float]) -> Callable[[Run], float]:
    return lambda run: amount(run) / run.burst.count


def _cpu_milliseconds(process: str) -> Callable[[Run], float]:
    return _per_object(lambda run: 1000 * run.burst.cost.cpu[process])


ROWS: Sequence[Row] = (
    Row(
        "ModelDeployments per second",
        lambda r: r.burst.count / r.burst.cost.seconds,
        ">= 0.95 x Go",
        _at_least_theirs(0.95),
    ),
    Row("creation to status in the burst, p50, s", lambda r: r.burst.settle_p50),
    Row("creation to status in the burst, p95, s", lambda r: r.burst.settle_p95),
    Row(
        "its own CPU per ModelDeployment, ms",
        _cpu_milliseconds("contestant"),
        "<= 1.02 x Go",
        _at_most_theirs(CPU_SHARE),
    ),
    Row("API server's CPU per ModelDeployment, ms", _cpu_milliseconds("apiserver")),
    Row("etcd's CPU per ModelDeployment, ms", _cpu_milliseconds("etcd")),
    Row(
        "resident memory, MiB",
        lambda r: r.burst.resident["contestant"],
        "<= 1.35 x Go",
        _at_most_theirs(MEMORY_SHARE),
    ),
    Row(
        "writes per ModelDeployment",
        _per_object(lambda r: r.burst.cost.writes),
        f"{WRITES_PER_OBJECT}",
        _exactly(WRITES_PER_OBJECT),
        hard=True,
    ),
    Row("reads per ModelDeployment", _per_object(lambda r: r.burst.cost.reads), "0", _exactly(0), hard=True),
    Row("answers >= 400 in the burst", lambda r: sum(r.burst.cost.refused.values()), "0", _exactly(0)),
    Row("writes at rest", lambda r: r.rest.writes, "0", _exactly(0), hard=True),
    Row("restart: writes", lambda r: r.restart.writes, "0", _exactly(0), hard=True),
    Row("restart: LIST requests", lambda r: r.restart.lists),
    Row("restart: CPU, s", lambda r: r.restart.cpu["contestant"], "<= 8", _at_most(8)),
    Row("restart: quiet after, s", lambda r: r.restart.seconds),
    Row(
        "spec patched to Deployment patched, p50, ms",
        lambda r: percentile(r.reactions.patched, 0.5),
        "<= 20",
        _at_most(20),
    ),
    Row(
        "spec patched to Deployment patched, p95, ms",
        lambda r: percentile(r.reactions.patched, 0.95),
        "<= 35",
        _at_most(35),
    ),
    Row(
        "Deployment deleted to recreated, p50, ms",
        lambda r: percentile(r.reactions.recreated, 0.5),
        "<= 20",
        _at_most(20),
    ),
    Row(
        "Deployment deleted to recreated, p95, ms",
        lambda r: percentile(r.reactions.recreated, 0.95),
        "<= 35",
        _at_most(35),
    ),
    Row("cores busy with other work in the burst", lambda r: r.burst.cost.foreign_cores),
    Row("load average (1 min) before the run", lambda r: r.load_average[0]),
)


def lines(runs: Sequence[Run]) -> list[Line]:
    """One per row: medians over the rounds."""
    count = runs[0].burst.count
    by_name = {name: [run for run in runs if run.contestant == name] for name in (OURS, THEIRS)}
    return [_line(row, by_name, count) for row in ROWS]


def _line(row: Row, runs: Mapping[str, Sequence[Run]], count: int) -> Line:
    ours, theirs = (median(map(row.value, runs[name])) if runs[name] else None for name in (OURS, THEIRS))
    passed = row.limit(ours, theirs, count) if row.limit and ours is not None else None
    return Line(row, ours, theirs, passed)


def table(found: Sequence[Line]) -> str:
    """Markdown."""
    head = "| | operator | Go | operator / Go | target | |\n|---|---:|---:|---:|---|---|"
    return "\n".join([head, *(_row(line) for line in found)])


def _row(line: Line) -> str:
    ratio = f"{line.ours / line.theirs:.2f}" if line.ours is not None and line.theirs else ""
    verdict = {None: "", True: "pass", False: "MISS"}[line.passed]
    cells = (line.row.name, _number(line.ours), _number(line.theirs), ratio, line.row.target, verdict)
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value == int(value) or value >= 100 else f"{value:.2f}"


def missed(found: Sequence[Line], *, hard: bool) -> list[str]:
    """Names of the rows whose target was missed; `hard`: only counts."""
    return [line.row.name for line in found if line.passed is False and (line.row.hard or not hard)]
