"""`python -m bench.operator`: the operator and a Go controller of the same job, side by side on a real API server.

`make bench-operator` calls this. bench/README.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from bench.operator import controller_build, kinds, phases, report
from bench.operator.arena import Arena, arena
from bench.operator.contestants import Contestant, go_controller, operator
from bench.operator.manifests import Objects, differences
from bench.operator.observer import objects
from bench.operator.report import OURS, THEIRS, Run

from modelpier_cluster.guarded import free_ports
from modelpier_cluster.progress import Progress

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"
CRD = ROOT / "crds" / "modelpier.dev_modeldeployments.yaml"
COMPARED = 20
"""ModelDeployments whose children are compared field by field."""


@dataclass(frozen=True)
class Options:
    count: int
    rounds: int
    rest_seconds: float
    repetitions: int
    only: str | None
    crd: Path
    check: bool


def parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m bench.operator", description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="ModelDeployments (default 1000)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds of both contestants; medians are shown (default 3)"
    )
    parser.add_argument("--only", choices=(OURS, THEIRS), help="run one contestant alone")
    parser.add_argument("--quick", action="store_true", help="200 ModelDeployments, one round, short phases")
    parser.add_argument("--rest", type=float, default=30.0, help="seconds of rest in which nothing may be written")
    parser.add_argument("--reactions", type=int, default=25, help="repetitions of each reaction")
    parser.add_argument("--crd", type=Path, default=CRD, help="the CustomResourceDefinition to install")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a count misses its target")
    found = parser.parse_args(arguments)
    if found.quick:
        return Options(200, 1, 5.0, 8, found.only, found.crd, found.check)
    return Options(found.n, found.rounds, found.rest, found.reactions, found.only, found.crd, found.check)


class Contest:
    """All rounds; the objects that each contestant made last are kept for the comparison."""

    def __init__(self, options: Options, logs: Path, progress: Progress) -> None:
        self._options = options
        self._logs = logs
        self._progress = progress
        self.runs: list[Run] = []
        self.made: dict[str, Objects] = {}

    async def all_rounds(self) -> None:
        names = [name for name in (OURS, THEIRS) if self._options.only in {None, name}]
        for number in range(1, self._options.rounds + 1):
            # Whoever goes first finds a cooler machine: the order alternates.
            for name in names if number % 2 else reversed(names):
                self.runs.append(await self._run(name, number))

    async def _run(self, name: str, number: int) -> Run:
        contestant, load = self._contestant(name), os.getloadavg()
        async with arena(self._options.crd.read_text(), self._logs) as place:
            burst, rest, restart, reactions = await self._phases(place, contestant)
        self._progress.say(
            f"round {number}, {name}: {burst.count / burst.cost.seconds:.0f}/s, {burst.cost.writes} writes, "
            f"{burst.cost.foreign_cores:.1f} cores busy with other work"
        )
        return Run(name, number, load, burst, rest, restart, reactions)

    async def _phases(
        self, place: Arena, contestant: Contestant
    ) -> tuple[phases.Burst, phases.Cost, phases.Cost, phases.Reactions]:
        options = self._options
        running = await place.start(contestant)
        try:
            await place.quiet(running, phases.QUIET_SECONDS)
            burst = await phases.burst(place, running, options.count)
            self.made[contestant.name] = await objects(place.api)
            rest = await phases.rest(place, running, options.rest_seconds)
            restart, running = await phases.restart(place, running, contestant)
            reactions = await phases.reactions(place, running, options.count, options.repetitions)
        finally:
            await asyncio.to_thread(running.stop)
        return burst, rest, restart, reactions

    def _contestant(self, name: str) -> Contestant:
        if name == OURS:
            return operator(free_ports(1)[0])
        return go_controller(controller_build.controller(self._progress), self._logs / "plan-key")


def show(contest: Contest, options: Options) -> list[report.Line]:
    lines = report.lines(contest.runs)
    print(f"{options.count} ModelDeployments, medians of {options.rounds} rounds, {os.cpu_count()} cores\n")
    print(report.table(lines))
    for name in contest.made:
        last = next(run for run in reversed(contest.runs) if run.contestant == name)
        for phase, cost in (("burst", last.burst.cost), ("rest", last.rest), ("restart", last.restart)):
            print(f"\nRequests in the last {phase}, {name}: {json.dumps(cost.requests)} {json.dumps(cost.refused)}")
    if len(contest.made) == 2:
        names = [kinds.name_of(number) for number in range(min(COMPARED, options.count))]
        found = differences(contest.made[OURS], contest.made[THEIRS], names)
        print(f"\nDifferences between the objects of both (operator | Go): {len(found) or 'none'}")
        print("\n".join(f"- {line}" for line in found))
    return lines


def save(contest: Contest) -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"operator-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps([asdict(run) for run in contest.runs], indent=1))
    return path


def main() -> int:
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    with tempfile.TemporaryDirectory(prefix="modelpier-bench-") as logs:
        contest = Contest(options, Path(logs), Progress())
        uvloop.run(contest.all_rounds())
    lines = show(contest, options)
    print(f"\nWritten to {save(contest).relative_to(ROOT)}")
    if options.check and (names := report.missed(lines, hard=True)):
        print(f"missed: {', '.join(names)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
