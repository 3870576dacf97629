"""The contest as a picture for the docs: SVG of plain shapes, readable on light and on dark ground. Pure.

One panel for each model: requests per second on a logarithmic axis, a row for each contestant. Used by __main__.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from bench.server.contestants import BARE, NOOP, OURS
from bench.server.results import RAW, Cell, Results
from bench.server.rounds import TARGETED

WIDTH, LEFT, RIGHT = 760, 130, 210
ROW, HEAD, GAP = 24, 44, 26
LIMITS = (RAW, NOOP, BARE)
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.note { fill: #57606a }
.scale { font-size: 10px; text-anchor: middle }
.axis { stroke: #d0d7de; stroke-width: 1 }
.ours { fill: #0969da }
.peer { fill: #8c959f }
.limit { fill: none; stroke: #57606a; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .note { fill: #9198a1 }
  .axis { stroke: #3d444d }
  .ours { fill: #4493f8 }
  .peer { fill: #768390 }
  .limit { stroke: #9198a1 }
}
"""


@dataclass(frozen=True)
class Scale:
    """A logarithmic axis from one power of ten to another."""

    low: int
    high: int

    @classmethod
    def around(cls, values: list[float]) -> Scale:
        return cls(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))))

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.low) / max(1, self.high - self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)


def svg(results: Results) -> str:
    panels, height = [], 8.0
    for model, concurrency in TARGETED.items():
        cells = [
            cell for cell in results.cells() if cell.main and (cell.model, cell.concurrency) == (model, concurrency)
        ]
        if cells:
            panels.append(_panel(results, cells, height))
            height += HEAD + ROW * len(cells) + GAP
    note = _text(8, height, "logarithmic axes; filled: servers, hollow: limits", "note")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + 12:.0f}" role="img">'
    title = f"<title>{escape(_title(results))}</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *panels, note, "</svg>", ""])


def _title(results: Results) -> str:
    return f"Requests per second, {results.notes['date']}, {results.notes['machine']}"


def _panel(results: Results, cells: list[Cell], top: float) -> str:
    rates = {cell: results.rate(cell) or 0.0 for cell in cells}
    rates = {cell: rate for cell, rate in rates.items() if rate > 0}
    scale = Scale.around(list(rates.values()))
    first = cells[0]
    heading = f"{first.model}, {first.concurrency} at once: requests per second, server's CPU per request"
    bottom = top + HEAD + ROW * len(rates)
    axes = [
        f'<line class="axis" x1="{scale.at(10**power):.0f}" x2="{scale.at(10**power):.0f}" '
        f'y1="{top + HEAD - 6:.0f}" y2="{bottom:.0f}"/>'
        f'<text class="note scale" x="{scale.at(10**power):.0f}" y="{top + HEAD - 9:.0f}">{10**power:,}</text>'
        for power in range(scale.low, scale.high + 1)
    ]
    order = sorted(rates, key=lambda cell: -rates[cell])
    rows = [_row(results, cell, rates[cell], scale, top + HEAD + ROW * n + 8) for n, cell in enumerate(order)]
    return "\n".join([_text(8, top + 14, heading, "title"), *axes, *rows])


def _row(results: Results, cell: Cell, rate: float, scale: Scale, y: float) -> str:
    kind = "ours" if cell.contestant == OURS else "limit" if cell.contestant in LIMITS else "peer"
    mark = f'<circle class="{kind}" cx="{scale.at(rate):.1f}" cy="{y:.1f}" r="5.5"/>'
    figures = f"{rate:,.0f}/s, {_time(results.cpu(cell) or 0.0)}"
    return "\n".join([_text(8, y + 4, cell.contestant), mark, _text(WIDTH - RIGHT + 16, y + 4, figures, "note")])


def _time(microseconds: float) -> str:
    return f"{microseconds:.0f} us" if microseconds < 1000 else f"{microseconds / 1000:.1f} ms"


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text{name} x="{x:.0f}" y="{y:.0f}">{escape(words)}</text>'
