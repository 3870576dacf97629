"""`python -m bench.server`: our server, its peers and the limits side by side on this machine.

`make bench-server` calls this. bench/README.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.server import plot, report, rounds, singles, targets, versions
from bench.server.arena import Arena, truth
from bench.server.contestants import MODELS, Contestant, limits, ours, peers
from bench.server.cores import Cores, cores
from bench.server.results import Results, decode, encode
from modelpier_cluster.progress import Progress

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"
NOT_COMPARABLE = (
    "The targets were set for three cores of the server and one of the load generator: what is said of requests per "
    "second is not comparable here. Shares of CPU are."
)


@dataclass(frozen=True)
class Options:
    seconds: float
    rounds: int
    full: bool
    models: tuple[str, ...]
    only: tuple[str, ...]
    singles: bool
    check: bool
    again: Path | None
    plot: Path | None


def parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m bench.server", description=__doc__)
    add = parser.add_argument
    add(
        "--seconds",
        type=float,
        default=10.0,
        help="of each run of ours and of the limits; peers get a third (default 10)",
    )
    add("--rounds", type=int, default=5, help="runs of each; medians are shown (default 5)")
    add("--full", action="store_true", help="all forms of request at concurrency 1, 16, 64 and 256: hours")
    add("--quick", action="store_true", help="one round of two seconds")
    add("--models", nargs="*", choices=MODELS, default=MODELS, help="of the contest (default: all)")
    add("--only", nargs="*", default=(), metavar="NAME", help="contestants beside ours (default: all)")
    add("--no-singles", action="store_true", help="leave out what is measured of our server alone")
    add("--check", action="store_true", help="exit status 1 when a target is missed that this machine can judge")
    add("--again", type=Path, metavar="RESULTS", help="show results that were written before; measure nothing")
    add("--plot", type=Path, metavar="SVG", help="draw the contest there")
    found = parser.parse_args(arguments)
    seconds, count = (2.0, 1) if found.quick else (found.seconds, found.rounds)
    return Options(
        *(seconds, count, found.full, tuple(found.models), tuple(found.only), not found.no_singles, found.check),
        *(found.again, found.plot),
    )


def contestants(only: Sequence[str]) -> list[Contestant]:
    others = [*limits(), *peers()]
    return [ours(), *(one for one in others if not only or one.name in only)]


def measure(options: Options, where: Cores, results: Results) -> None:
    """Fills the results as they come: what there is when the program is told to end is worth keeping."""
    progress = Progress()
    progress.say("making the models")
    arena = Arena(where, options.seconds, options.rounds, progress, truth((*MODELS, "wide", "large")))
    results.notes |= {
        "date": time.strftime("%Y-%m-%d"),
        "machine": versions.machine(where),
        "software": versions.software(),
        "comparable": "yes" if where.comparable else "",
        "length": f"medians of {options.rounds} runs of {arena.seconds:g} s ({arena.peers_seconds:.1f} s for peers)",
    }
    if where.client is not None:
        os.sched_setaffinity(0, {where.client})  # what is started for the server is pinned elsewhere
    if options.singles:
        results.singles = singles.all_of_them(arena)
    for model in options.models:
        rounds.contest(arena, model, contestants(options.only), results, full=options.full)


def show(results: Results) -> list[targets.Line]:
    notes, comparable = results.notes, bool(results.notes["comparable"])
    found = targets.lines(results, comparable=comparable)
    print(f"{notes['date']}, {notes['machine']}; {notes['length']}.\n{notes['software']}\n")
    if not comparable:
        print(f"{NOT_COMPARABLE}\n")
    print(f"{report.targets(found)}\n\n{report.contest(results)}\n\n{report.checked(results)}\n")
    print(f"Load report of our server\n\n{report.load_report(results)}")
    if results.left_out:
        print(f"\nLeft out\n\n{report.left_out(results)}")
    return found


def save(results: Results) -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"server-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(encode(results), indent=1))
    return path


def main() -> int:
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    if options.again is not None:
        results = decode(json.loads(options.again.read_text()))
    else:
        results = Results()
        try:
            measure(options, cores(), results)
        finally:
            if results.notes:
                print(f"Written to {save(results).relative_to(ROOT)}\n")
    found = show(results)
    if options.plot is not None:
        options.plot.write_text(plot.svg(results))
    if options.check and (names := targets.missed(found)):
        print(f"missed: {', '.join(names)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
