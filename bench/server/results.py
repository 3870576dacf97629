"""What was measured, and medians of it. Pure; made by rounds and singles, read by targets, report and plot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

PARTS = ("queue", "compute_input", "compute_infer", "compute_output")
RAW = "ONNX Runtime"
"""The limit's name among the contestants."""


@dataclass(frozen=True)
class Cell:
    """`main`: the form of request that the contestant does best in, which is what is compared."""

    contestant: str
    model: str
    wire: str
    concurrency: int
    main: bool = True


@dataclass(frozen=True)
class Result:
    """One run. Latencies in milliseconds, `cpu` of the server in microseconds per request."""

    cell: Cell
    round: int
    rate: float
    cpu: float
    latencies: Mapping[str, float] = field(default_factory=dict)
    """mean, p50, p90, p95, p99."""
    client: float = 0.0
    """Share of its core that the load generator took."""
    foreign: float = 0.0
    """Cores that were busy with other work."""
    failed: int = 0
    resets: int = 0
    wrong: int = 0
    samples: int = 0
    split: Mapping[str, float] = field(default_factory=dict)
    """Of the server's own statistics: microseconds of each of PARTS per request."""


@dataclass
class Results:
    runs: list[Result] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """"contestant, model" to the reason."""
    singles: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def of(self, cell: Cell) -> list[Result]:
        return [run for run in self.runs if run.cell == cell]

    def cells(self) -> list[Cell]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(run.cell for run in self.runs))

    def main(self, contestant: str, model: str, concurrency: int) -> Cell | None:
        return next(
            (
                cell
                for cell in self.cells()
                if cell.main and (cell.contestant, cell.model, cell.concurrency) == (contestant, model, concurrency)
            ),
            None,
        )

    def rate(self, cell: Cell | None) -> float | None:
        return self.median(cell, lambda run: run.rate)

    def cpu(self, cell: Cell | None) -> float | None:
        return self.median(cell, lambda run: run.cpu)

    def latency(self, cell: Cell | None, name: str) -> float | None:
        return self.median(cell, lambda run: run.latencies[name])

    def median(self, cell: Cell | None, value: Callable[[Result], float]) -> float | None:
        """Over the rounds; None where it was not measured."""
        runs = self.of(cell) if cell is not None else []
        return median(map(value, runs)) if runs else None

    def split(self, cell: Cell) -> dict[str, float]:
        runs = [run.split for run in self.of(cell) if run.split]
        return {part: median(run[part] for run in runs) for part in PARTS} if runs else {}

    def best(self, names: Iterable[str], model: str, concurrency: int) -> Cell | None:
        """Who of them answered most."""
        cells = [cell for name in names if (cell := self.main(name, model, concurrency)) is not None]
        return max(cells, key=lambda cell: self.rate(cell) or 0.0, default=None)


def split_between(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> dict[str, float]:
    """Microseconds per request in each part, from two readings of Triton's statistics."""
    if before is None or after is None:
        return {}
    first, second = before["inference_stats"], after["inference_stats"]
    count = second["success"]["count"] - first["success"]["count"]
    if count <= 0:
        return {}
    return {part: (second[part]["ns"] - first[part]["ns"]) / count / 1e3 for part in PARTS}


def encode(results: Results) -> dict[str, Any]:
    runs = [{**run.__dict__, "cell": run.cell.__dict__} for run in results.runs]
    return {**results.__dict__, "runs": runs}


def decode(data: Mapping[str, Any]) -> Results:
    runs: Sequence[Mapping[str, Any]] = data["runs"]
    made = [Result(**{**run, "cell": Cell(**run["cell"])}) for run in runs]
    return Results(made, dict(data["left_out"]), dict(data["singles"]), dict(data["notes"]))
