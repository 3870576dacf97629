"""Turns what was played into the tables that are printed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.analysis.play import Played
from bench.analysis.scenarios import Scenario

Row = tuple[Scenario, Played]
Differences = Sequence[NDArray[np.float64]]
MOST = 0.01
BAD_ANSWERS = 50


def missed(scenario: Scenario, played: Played) -> float:
    """The share of runs that ended in what must not be: for a bad version everything but FAIL."""
    if scenario.verdict == "PASS":
        return float((played.failed > 0).mean())
    return 1 - float(played.rolled_back.mean())


def targets(rows: Iterable[Row]) -> str:
    head = (
        "| scenario | weight | rolled back | passed | undecided | target | | requests to the verdict: median, p99 "
        "| bad answers to FAIL: median, p99 |\n|---|---:|---:|---:|---:|---|---|---:|---:|"
    )
    return "\n".join((head, *(_target(*row) for row in rows)))


def _target(scenario: Scenario, played: Played) -> str:
    good = scenario.verdict == "PASS"
    text = f"false rollbacks <= {MOST:.0%}" if good else f"missed <= {MOST:.0%}"
    share = missed(scenario, played)
    found = f"{_percent(share)}: {'pass' if share <= MOST else 'MISS'}"
    cells = (scenario.name, f"{scenario.weight} %", _outcomes(played), text, found, _requests(played), _bad(played))
    return f"| {' | '.join(cells)} |"


def _outcomes(played: Played) -> str:
    rolled_back, promoted = played.rolled_back, played.promoted
    return " | ".join(_percent(float(rows.mean())) for rows in (rolled_back, promoted, ~rolled_back & ~promoted))


def all_bad(rows: Iterable[Row]) -> str:
    head = (
        "| scenario | candidate's weight | rolled back | bad answers to FAIL, median | p99 | most | target | |\n"
        "|---|---:|---:|---:|---:|---:|---|---|"
    )
    return "\n".join((head, *(_all_bad(*row) for row in rows)))


def _all_bad(scenario: Scenario, played: Played) -> str:
    median, late, most = np.quantile(played.bad, (0.5, 0.99, 1.0))
    found = "pass" if missed(scenario, played) == 0.0 and most <= BAD_ANSWERS else "MISS"
    rolled_back = _percent(float(played.rolled_back.mean()))
    return (
        f"| {scenario.name} | {scenario.weight} % | {rolled_back} | {median:.0f} | {late:.0f} | {most:.0f} "
        f"| <= {BAD_ANSWERS} | {found} |"
    )


def curve(rows: Iterable[Row]) -> str:
    head = (
        "| effect | candidate's weight | rolled back | passed | undecided | requests to the verdict, median and p99 |\n"
        "|---|---:|---:|---:|---:|---:|"
    )
    return "\n".join((head, *(f"| {s.name} | {s.weight} % | {_outcomes(p)} | {_requests(p)} |" for s, p in rows)))


def _requests(played: Played) -> str:
    return _two(played.requests)


def _bad(played: Played) -> str:
    return _two(played.bad[played.rolled_back]) if played.rolled_back.mean() > 0.1 else ""


def _two(values: NDArray[np.int64]) -> str:
    median, late = np.quantile(values, (0.5, 0.99))
    return f"{median:,.0f}, {late:,.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def misses(rows: Sequence[Row]) -> int:
    return sum(missed(scenario, played) > MOST for scenario, played in rows if scenario.verdict)


def bounds(found: Mapping[Scenario, Differences]) -> str:
    """What one look at the end misses that knows latencies and p99 exactly and fails 1 % of unchanged versions."""
    head = "| scenario | weight | missed by one look at exact latencies |\n|---|---:|---:|"
    values = {scenario: np.concatenate(parts) for scenario, parts in found.items()}
    limit = {s.weight: np.quantile(v, 1 - MOST) for s, v in values.items() if s.verdict == "PASS"}
    lines = (
        f"| {s.name} | {s.weight} % | {_percent(float((v <= limit[s.weight]).mean()))} |"
        for s, v in values.items()
        if s.verdict == "FAIL"
    )
    return "\n".join((head, *lines))
