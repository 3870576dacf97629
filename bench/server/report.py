"""Results as Markdown: the targets, everybody's figures, our load report, versions. Pure; used by __main__."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.server.contestants import OURS
from bench.server.results import PARTS, RAW, Cell, Results
from bench.server.targets import LIMITED, Line


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    rule = ["---"] * text_columns + ["---:"] * (len(head) - text_columns)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def targets(found: Sequence[Line]) -> str:
    rows = [(line.name, line.measured, line.target, line.verdict) for line in found]
    return _table(("", "measured", "target", ""), rows, text_columns=4)


def contest(results: Results) -> str:
    """Everybody's figures, a table for each model."""
    models = dict.fromkeys(cell.model for cell in results.cells())
    return "\n\n".join(f"{model}\n\n{_contest(results, model)}" for model in models)


def _contest(results: Results, model: str) -> str:
    head = (
        "",
        "request",
        "c",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "server's CPU, us",
        "generator's core",
        "other cores",
        "",
    )
    cells = [cell for cell in results.cells() if cell.model == model]
    cells.sort(key=lambda cell: (cell.wire == "grpc", cell.concurrency, -(results.rate(cell) or 0)))
    return _table(head, [_row(results, cell) for cell in cells], text_columns=2)


def _row(results: Results, cell: Cell) -> tuple[str, ...]:
    rate, cpu = f"{results.rate(cell):,.0f}", f"{results.cpu(cell):,.1f}"
    if cell.contestant == RAW:
        return (
            cell.contestant,
            "none",
            "-",
            rate,
            "-",
            "-",
            cpu,
            "-",
            "-",
            results.notes[f"best layout, {cell.model}"],
        )
    client = results.median(cell, lambda run: run.client) or 0.0
    latencies = [f"{results.latency(cell, name):.2f}" for name in ("p50", "p99")]
    foreign = f"{results.median(cell, lambda run: run.foreign):.1f}"
    shares = (f"{100 * client:.0f} %", foreign, _remarks(results, cell, client))
    return (cell.contestant, cell.wire, str(cell.concurrency), rate, *latencies, cpu, *shares)


def _remarks(results: Results, cell: Cell, client: float) -> str:
    runs = results.of(cell)
    found = [
        f"{count} {what}"
        for what in ("failed", "resets", "wrong")
        if (count := sum(getattr(run, what) for run in runs))
    ]
    return ", ".join([*found, *(["limited by the generator"] if client > LIMITED else [])])


def load_report(results: Results) -> str:
    """Of our server, as Triton's perf_analyzer does."""
    names = ("queue", "input", "run", "output")
    head = (
        "model, request",
        "c",
        "requests/s",
        "avg ms",
        "p50",
        "p90",
        "p95",
        "p99",
        *(f"{name} us" for name in names),
    )
    cells = sorted(
        (cell for cell in results.cells() if cell.contestant == OURS),
        key=lambda cell: (cell.model, cell.wire, cell.concurrency),
    )
    return _table(head, [_load_row(results, cell) for cell in cells])


def _load_row(results: Results, cell: Cell) -> tuple[str, ...]:
    latencies = [f"{results.latency(cell, name):.2f}" for name in ("mean", "p50", "p90", "p95", "p99")]
    split = results.split(cell)
    parts = [f"{split[part]:,.0f}" if split else "-" for part in PARTS]
    return (f"{cell.model}, {cell.wire}", str(cell.concurrency), f"{results.rate(cell):,.0f}", *latencies, *parts)


def checked(results: Results) -> str:
    """How many answers were compared with ONNX Runtime's own."""
    runs = [run for run in results.runs if run.samples]
    wrong = sum(run.wrong for run in runs)
    return f"{sum(run.samples for run in runs)} answers were compared with ONNX Runtime's own; {wrong} were wrong."


def left_out(results: Results) -> str:
    return "\n".join(f"- {who}: {why[:400]}" for who, why in results.left_out.items())
