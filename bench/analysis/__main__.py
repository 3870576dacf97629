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

CHUNK = 1_000


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.analysis", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="per scenario (default 10,000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-curve", action="store_true", help="leave out the effects that have no target")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a target is missed")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread per process is what the pool expects
    from bench.analysis import play, report, scenarios  # noqa: PLC0415 - numpy reads that when it is imported

    began, cores = time.monotonic(), len(os.sched_getaffinity(0))
    tables = [("Targets", scenarios.TARGETS, report.targets), ("Broken", scenarios.ALL_BAD, report.all_bad)]
    if not options.no_curve:
        tables.append(("Smaller and other effects", scenarios.CURVE, report.curve))
    missed = 0
    with ProcessPoolExecutor(cores) as pool:
        sizes = [min(CHUNK, options.runs - start) for start in range(0, options.runs, CHUNK)]
        started = {
            scenario: [pool.submit(play.play, scenario, n, options.seed + 1000 * i) for i, n in enumerate(sizes)]
            for _, group, _ in tables
            for scenario in group
        }
        for title, group, show in tables:
            rows = [(s, play.joined([part.result() for part in started[s]])) for s in group]
            missed += report.misses(rows)
            print(f"\n## {title}\n\n{show(rows)}", flush=True)
    print(f"\n{options.runs:,} runs each, seed {options.seed}, {cores} cores, {time.monotonic() - began:.0f} s.")
    return int(options.check and missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
