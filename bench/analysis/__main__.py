"""`python -m bench.analysis`: how often the analysis of a candidate is wrong, in 10,000 seeded runs per scenario.

`make bench-analysis` calls this. docs/explanation/analysis.md says what is simulated and what the figures mean.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported; each core has a process of its own

from bench.analysis import play, report, scenarios
from bench.analysis.scenarios import Scenario
from bench.analysis.traffic import Version

CHUNK = 2_500
REFEREED = 25
"""Runs of each scenario that the real analysis plays as well."""
FEWER = 4
"""Scenarios without a target get a fourth of the runs: they are there for the shape of a curve."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.analysis", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="per scenario (default 10,000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-curve", action="store_true", help="leave out the effects that have no target")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a target is missed")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    began, cores = time.monotonic(), len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores) as pool:
        runs = Runs(pool, options.runs, options.seed, [*scenarios.TARGETS, *scenarios.ALL_BAD])
        others = Runs(pool, max(1, options.runs // FEWER), options.seed, () if options.no_curve else scenarios.CURVE)
        rows = [runs.played(scenario) for scenario in scenarios.TARGETS]
        print(f"## Targets\n\n{report.targets(rows)}\n", flush=True)
        broken = [runs.played(scenario) for scenario in scenarios.ALL_BAD]
        print(f"## A broken candidate\n\n{report.all_bad(broken)}\n", flush=True)
        print(f"## What can be known\n\n{report.bounds(runs.differences())}\n", flush=True)
        if not options.no_curve:
            table = report.curve(map(others.played, scenarios.CURVE))
            print(f"## Other effects ({others.number:,} runs)\n\n{table}\n")
    print(f"{options.runs:,} runs each, seed {options.seed}, {cores} cores, {time.monotonic() - began:.0f} s.")
    return int(options.check and report.misses([*rows, *broken]) > 0)


class Runs:
    """Everything in the pool at once, in chunks with seeds of their own."""

    def __init__(self, pool: ProcessPoolExecutor, number: int, seed: int, wanted: Sequence[Scenario]) -> None:
        self.number, self._pool, self._seed = number, pool, seed
        self._sizes = [min(CHUNK, number - start) for start in range(0, number, CHUNK)]
        self._plays = {
            scenario: [
                pool.submit(play.play, scenario, runs, seed, 0 if number else REFEREED)
                for number, (runs, seed) in enumerate(self._chunks())
            ]
            for scenario in wanted
        }
        self._differences = {
            scenario: [pool.submit(play.differences, scenario, *chunk) for chunk in self._chunks()]
            for scenario in wanted
            if scenario.verdict and scenario.candidate.errors == Version().errors
        }

    def _chunks(self) -> list[tuple[int, int]]:
        return [(runs, self._seed + 1000 * number) for number, runs in enumerate(self._sizes)]

    def played(self, scenario: Scenario) -> report.Row:
        return scenario, play.joined([part.result() for part in self._plays[scenario]])

    def differences(self) -> dict[Scenario, report.Differences]:
        return {scenario: [part.result() for part in parts] for scenario, parts in self._differences.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
