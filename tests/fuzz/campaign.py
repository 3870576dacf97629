"""`python -m fuzz.campaign --minutes N`: mutates every target for its share of the time and writes a report.

`make fuzz` calls it for as long as somebody likes, `test_mutation` for two minutes. Each target runs in a process of
its own (`worker`), because what a defect takes down is the process; one that dies of code of others is started again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fuzz.targets import TARGETS, Target

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
REGRESSIONS = HERE / "regressions"
BUILD = HERE.parent.parent / "build" / "fuzz"
LONGEST_INPUT = 5
"""Seconds that one input may take."""
MOST_MEMORY = 1024
"""MiB of one process."""
MOST_GROWTH = 64
"""MiB that a process may grow by from its first inputs to its last; libFuzzer keeps what it has found in there, too."""
ROUND = 300.0
"""Seconds of all targets together, where a number of executions is asked for."""
START = 60.0
"""Seconds that a worker gets beyond its time: to import, and to end."""

_RUNS = re.compile(r"^#(\d+)\s+(\w+).*?rss: (\d+)Mb", re.MULTILINE)
_ERROR = re.compile(r"^==\d+== ?(ERROR: libFuzzer: .*)$", re.MULTILINE)


@dataclass
class Outcome:
    target: str
    executions: int = 0
    seconds: float = 0.0
    first_mib: int = 0
    last_mib: int = 0
    findings: list[str] = field(default_factory=list)
    """Files with the inputs, and what they did."""

    @property
    def growth(self) -> int:
        return self.last_mib - self.first_mib

    def add(self, more: Outcome) -> None:
        """What another process has done on the same target; of memory the worst is kept."""
        self.executions += more.executions
        self.seconds += more.seconds
        self.findings += more.findings
        if not self.last_mib or more.growth > self.growth:
            self.first_mib, self.last_mib = more.first_mib, more.last_mib


@dataclass(frozen=True)
class Folders:
    """Where a campaign leaves what it finds: `new` inputs that reach something, `findings` that break something."""

    root: Path

    def new(self, target: Target) -> Path:
        return _made(self.root / "new" / target.name)

    def findings(self, target: Target) -> Path:
        return _made(self.root / "findings" / target.name)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run(target: Target, seconds: float, folders: Folders) -> Outcome:
    """Until the time is over, or, where a finding is a failure, until there is one."""
    outcome, end = Outcome(target.name), time.monotonic() + seconds
    while (left := end - time.monotonic()) >= 1 or not outcome.seconds:
        one, begin = Outcome(target.name), time.monotonic()
        log, code = _work(target, max(1, round(left)), folders)
        one.seconds = time.monotonic() - begin
        _read(log, one)
        if code:
            one.findings.append(_finding(log, code))
        outcome.add(one)
        if code and not target.foreign:
            break
    return outcome


def command(target: Target, folders: Folders, *flags: str) -> list[str]:
    dictionary = _made(folders.root / "dictionaries") / target.name
    words = ("".join(f"\\x{byte:02x}" for byte in word.encode("latin-1")) for word in target.words or ("\0",))
    dictionary.write_text("".join(f'"{word}"\n' for word in words))
    return [
        sys.executable, "-m", "fuzz.worker", target.name, f"-dict={dictionary}", f"-max_len={target.longest}",
        f"-timeout={LONGEST_INPUT}", f"-rss_limit_mb={MOST_MEMORY}", f"-artifact_prefix={folders.findings(target)}/",
        "-close_fd_mask=0", *flags,
    ]  # fmt: skip


def _work(target: Target, seconds: int, folders: Folders) -> tuple[str, int]:
    """What one worker said, and its exit status."""
    flags = [f"-max_total_time={seconds}", "-print_final_stats=1"]
    inputs = [
        str(folders.new(target)),
        *(str(f / target.name) for f in (CORPUS, REGRESSIONS) if (f / target.name).is_dir()),
    ]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(
            [*command(target, folders, *flags), *inputs],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds + START, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return (error.stderr or b"").decode(errors="replace"), 124
    return (done.stdout + done.stderr).decode(errors="replace"), done.returncode


def _read(log: str, outcome: Outcome) -> None:
    """Counts of one worker: the last line that has one."""
    lines = _RUNS.findall(log)
    if lines:
        outcome.executions += int(lines[-1][0])
        started = next((mib for _, event, mib in lines if event == "INITED"), lines[0][2])
        outcome.first_mib, outcome.last_mib = int(started), int(lines[-1][2])


def _finding(log: str, code: int) -> str:
    """The end of what it said: the error and the file of the input."""
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith(("#", "stat::", "MS: "))]
    if (at := next((i for i, line in enumerate(lines) if "Uncaught Python exception" in line), None)) is not None:
        return "\n".join(lines[at : at + 25])
    errors = _ERROR.findall(log)
    saved = [line for line in lines if "Test unit written to" in line]
    return "\n".join([f"exit status {code}", *errors, *(saved[-1:] or lines[-5:])])


def campaign(seconds: float, names: Sequence[str], folders: Folders, workers: int = 1) -> list[Outcome]:
    """`seconds` of each worker. The targets with the most to do begin."""
    chosen = sorted((TARGETS[name] for name in names), key=lambda target: -target.share)
    whole = sum(target.share for target in chosen)
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda target: run(target, workers * seconds * target.share / whole, folders), chosen)
        return list(found)


def rounds(executions: int, names: Sequence[str], folders: Folders, workers: int = 1) -> list[Outcome]:
    """As many as it takes; ends early where there is something to mend."""
    outcomes = {name: Outcome(name) for name in names}
    while sum(outcome.executions for outcome in outcomes.values()) < executions and not failures([*outcomes.values()]):
        for outcome in campaign(ROUND, names, folders, workers):
            outcomes[outcome.target].add(outcome)
        print(f"{sum(outcome.executions for outcome in outcomes.values()):,} executions", flush=True)
    return list(outcomes.values())


def line(outcome: Outcome) -> str:
    rate = outcome.executions / max(outcome.seconds, 1e-9)
    return (
        f"| {outcome.target} | {outcome.executions:,} | {outcome.seconds:.0f} | {rate:,.0f} | {outcome.first_mib} | "
        f"{outcome.last_mib} | {len(outcome.findings)} |"
    )


def report(outcomes: Sequence[Outcome]) -> str:
    whole = sum(outcome.executions for outcome in outcomes)
    rows = [
        f"Campaign of {time.strftime('%Y-%m-%d', time.gmtime())}, {os.cpu_count()} cores: {whole:,} executions.",
        "",
        "| target | executions | seconds | per second | MiB at first | MiB at the end | findings |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(line(outcome) for outcome in outcomes),
    ]
    for outcome in outcomes:
        rows += [f"\n{outcome.target}:\n```\n{finding}\n```" for finding in outcome.findings]
    return "\n".join(rows) + "\n"


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """What must be mended: of our own code, everything."""
    ours = [outcome for outcome in outcomes if not TARGETS[outcome.target].foreign]
    found = [f"{outcome.target}: {finding}" for outcome in ours for finding in outcome.findings]
    return found + [f"{o.target}: grew by {o.growth} MiB" for o in ours if o.growth > MOST_GROWTH]


def keep(names: Sequence[str], folders: Folders) -> None:
    """Makes the saved corpus anew: of all inputs the smallest that together reach what all of them reach."""
    for target in (TARGETS[name] for name in names):
        seeds = _emptied(folders.root / "seeds" / target.name)
        for name, data in target.seeds().items():
            (seeds / name).write_bytes(data)
        fresh = _emptied(folders.root / "kept" / target.name)
        sources = [str(f) for f in (seeds, CORPUS / target.name, folders.new(target)) if f.is_dir()]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        merge = [*command(target, folders, "-merge=1"), str(fresh), *sources]
        subprocess.run(merge, env=environment, check=True, capture_output=True)
        if not any(fresh.iterdir()):
            raise SystemExit(f"{target.name}: nothing is left of its inputs; the saved corpus stays as it is")
        saved = _emptied(CORPUS / target.name)
        for file in fresh.iterdir():
            file.rename(saved / file.name[:SHORT_NAME])
        print(f"{target.name}: {sum(1 for _ in saved.iterdir())} inputs", flush=True)


SHORT_NAME = 12
"""Digits of an input's hash that name its file."""


def _emptied(folder: Path) -> Path:
    for old in _made(folder).iterdir():
        old.unlink()
    return folder


def _arguments() -> argparse.Namespace:
    flags = argparse.ArgumentParser(prog="python -m fuzz.campaign", description=__doc__.splitlines()[0])
    flags.add_argument("--minutes", type=float, default=10.0, help="of all targets together (default %(default)s)")
    flags.add_argument("--executions", type=int, default=0, help="go on until there were so many, in place of a time")
    flags.add_argument("--workers", type=int, default=1, help="processes at once (default %(default)s)")
    flags.add_argument("--target", action="append", choices=list(TARGETS), help="only this one; repeatable")
    flags.add_argument("--keep", action="store_true", help="afterwards, make the saved corpus anew of what was found")
    return flags.parse_args()


def main() -> int:
    asked = _arguments()
    names, folders = asked.target or list(TARGETS), Folders(BUILD)
    if asked.executions:
        outcomes = rounds(asked.executions, names, folders, asked.workers)
    else:
        outcomes = campaign(60 * asked.minutes, names, folders, asked.workers) if asked.minutes else []
    (_made(BUILD) / "report.md").write_text(report(outcomes))
    (BUILD / "report.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    print(report(outcomes))
    wrong = failures(outcomes)
    print("\n".join(wrong), file=sys.stderr)
    if asked.keep and not wrong:
        keep(names, folders)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
