"""Runs the levels of tests one after another and prints what each took against its budget: `make test` and its parts
call this.

`python tests/stages.py [STAGE ...]`. A stage that this machine cannot run skips itself with the reason and the
command that would enable it; with CI=true or MODELPIER_REQUIRE=1 a skipped test of a required stage is a failure,
since nobody would read the reason; unless the reason begins with "optional: ".
Standard library alone: it runs before anything is installed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
REPORTS = ROOT / "build" / "reports"
OPTIONAL = "optional: "


@dataclass(frozen=True)
class Stage:
    name: str
    budget: float
    """Minutes on two cores with cold caches."""
    command: tuple[str, ...]
    required: bool = False
    """Its skipped tests count as failures where MODELPIER_REQUIRE or CI says so."""


@dataclass
class Result:
    stage: Stage
    seconds: float = 0.0
    code: int = 0
    passed: int = 0
    failed: int = 0
    skipped: list[str] = field(default_factory=list)
    optional: list[str] = field(default_factory=list)
    """Skipped for want of what is too dear to be asked of every machine."""

    @property
    def good(self) -> bool:
        return self.code == 0 and not (self.stage.required and required() and self.skipped)


def no_programs() -> str:
    """Why the local cluster's programs cannot be had here; what needs them then skips itself."""
    if platform.system() == "Linux" and platform.machine() in {"x86_64", "AMD64"}:
        return ""
    return f"they are for Linux on x86-64, this is {platform.system()} on {platform.machine()}; set KUBECONFIG for e2e"


def pytest(*args: str) -> tuple[str, ...]:
    return (str(PYTHON), "-m", "pytest", *args)


CONTROL_PLANE = "control_plane and not heavy"
IN_MEMORY = "not control_plane and not heavy"
STAGES = (
    Stage("check", 1, ("make", "--no-print-directory", "check")),
    Stage("cluster-build", 7, ("make", "--no-print-directory", "cluster-build"), required=True),
    Stage("unit", 4.5, pytest("tests/unit", "tests/golden", "tests/contract", "-n", "2"), required=True),
    Stage("convergence", 2, pytest("tests/convergence", "-m", IN_MEMORY, "-n", "2"), required=True),
    Stage("fuzz", 2.5, pytest("tests/fuzz"), required=True),
    Stage("server", 7, pytest("tests/server"), required=True),
    Stage("control-plane", 7, pytest("tests/control_plane", "tests/convergence", "-m", CONTROL_PLANE), required=True),
    Stage("cluster", 2, pytest("tests/cluster"), required=True),
    Stage("e2e", 12, pytest("tests/e2e", "-m", "e2e and not heavy"), required=True),
)
HEAVY = Stage("heavy", 60, pytest("tests", "-m", "heavy"))
"""Only when asked for by name: torch, long loads, gigabytes of images."""


def required() -> bool:
    return os.environ.get("CI") == "true" or os.environ.get("MODELPIER_REQUIRE") == "1"


def run(stage: Stage) -> Result:
    print(f"\n=== {stage.name} (budget {stage.budget:g} min) ===", flush=True)
    result, report = Result(stage), REPORTS / f"{stage.name}.xml"
    if stage.name == "cluster-build" and (reason := no_programs()):
        result.skipped.append(f"cluster-build: {reason}")
        return result
    report.unlink(missing_ok=True)
    begin = time.monotonic()
    command = list(stage.command)
    if "pytest" in command:
        command += [f"--junit-xml={report}", "-q"]
    result.code = subprocess.run(command, cwd=ROOT, check=False).returncode
    result.seconds = time.monotonic() - begin
    if report.exists():
        read(report, result)
    elif result.code == 0:
        result.passed = 1
    else:
        result.failed = 1
    return result


def read(report: Path, result: Result) -> None:
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        if (skip := case.find("skipped")) is not None:
            reason = skip.get("message") or ""
            (result.optional if reason.startswith(OPTIONAL) else result.skipped).append(f"{name}: {reason}")
        elif case.find("failure") is not None or case.find("error") is not None:
            result.failed += 1
        else:
            result.passed += 1
    if result.code and not result.failed:
        result.failed = 1  # a crash, a time-out or nothing collected is no pass


def table(results: list[Result]) -> str:
    rows = [f"{'stage':<16}{'passed':>8}{'failed':>8}{'skipped':>9}{'took':>10}{'budget':>10}"]
    for r in results:
        took, over = f"{r.seconds / 60:.1f} min", "" if r.seconds <= 60 * r.stage.budget else "  over budget"
        verdict = "" if r.good else "  FAILED"
        rows.append(
            f"{r.stage.name:<16}{r.passed:>8}{r.failed:>8}{len(r.skipped) + len(r.optional):>9}{took:>10}"
            f"{r.stage.budget:>6g} min{over}{verdict}"
        )
    total = sum(r.seconds for r in results)
    rows.append(f"{'total':<41}{total / 60:>6.1f} min{sum(s.stage.budget for s in results):>6g} min")
    return "\n".join(rows)


def main(names: list[str]) -> int:
    known = {stage.name: stage for stage in (*STAGES, HEAVY)}
    if unknown := [n for n in names if n not in known]:
        print(f"no such stage: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    REPORTS.mkdir(parents=True, exist_ok=True)
    results = [run(known[n]) for n in names or [stage.name for stage in STAGES]]
    print("\n" + table(results))
    for r in results:
        for reason in (*r.skipped, *r.optional):
            print(f"skipped: {reason}")
    skipped_required = [s for r in results if r.stage.required and required() for s in r.skipped]
    passed, failed = sum(r.passed for r in results), sum(r.failed for r in results) + len(skipped_required)
    print(f"{passed} passed, {failed} failed, {sum(len(r.skipped) + len(r.optional) for r in results)} skipped")
    return 0 if all(r.good for r in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
