from dataclasses import replace

import pytest
from bench.operator import phases, report
from bench.operator.phases import Burst, Cost, Reactions
from bench.operator.report import OURS, THEIRS, Run

QUIET = Cost(10.0, {"contestant": 1.0}, 0.0, 0, 14, 14, {}, {})


def run(name: str, seconds: float = 10.0, writes: int = 800, number: int = 1, reads: int = 0) -> Run:
    cpu = {"contestant": 0.4, "apiserver": 2.0, "etcd": 0.3, "bench": 0.1, "loader": 0.1}
    burst = Burst(100, Cost(seconds, cpu, 0.5, writes, reads, 0, {}, {}), {"contestant": 60.0}, 1.0, 2.0)
    return Run(name, number, (1.0, 1.0, 1.0), burst, QUIET, QUIET, Reactions([10.0, 20.0], [5.0, 6.0]))


def line(runs: list[Run], name: str) -> report.Line:
    return next(found for found in report.lines(runs) if found.row.name == name)


@pytest.mark.parametrize(("seconds", "passed"), [(10.0, True), (10.5, True), (10.6, False)])
def test_the_rate_is_judged_against_the_other_contestant(seconds: float, passed: bool) -> None:
    found = line([run(OURS, seconds), run(THEIRS, 10.0)], "ModelDeployments per second")
    assert found.passed is passed
    assert found.ours == pytest.approx(100 / seconds)


def test_alone_the_rate_is_not_judged() -> None:
    assert line([run(OURS)], "ModelDeployments per second").passed is None


def test_medians_over_rounds() -> None:
    runs = [run(OURS, seconds, number=number) for number, seconds in enumerate((5.0, 10.0, 50.0))]
    assert line(runs, "ModelDeployments per second").ours == pytest.approx(10.0)


def test_one_write_too_many_is_a_hard_miss() -> None:
    runs = [run(OURS, writes=801), run(THEIRS)]
    assert report.missed(report.lines(runs), hard=True) == ["writes per ModelDeployment"]
    assert report.missed(report.lines([run(OURS), run(THEIRS)]), hard=True) == []


def test_one_read_is_a_hard_miss() -> None:
    assert report.missed(report.lines([run(OURS, reads=1), run(THEIRS)]), hard=True) == ["reads per ModelDeployment"]


def test_a_slow_machine_is_no_hard_miss() -> None:
    slow = run(OURS, seconds=100.0)
    assert report.missed(report.lines([slow, run(THEIRS)]), hard=True) == []
    assert "ModelDeployments per second" in report.missed(report.lines([slow, run(THEIRS)]), hard=False)


def test_writes_on_restart_and_at_rest_are_hard_misses() -> None:
    busy = replace(QUIET, writes=1)
    runs = [replace(run(OURS), rest=busy, restart=busy), run(THEIRS)]
    assert report.missed(report.lines(runs), hard=True) == ["writes at rest", "restart: writes"]


def test_the_table_shows_both_the_ratio_and_the_verdict() -> None:
    text = report.table(report.lines([run(OURS, 10.0), run(THEIRS, 5.0)]))
    assert "| ModelDeployments per second | 10 | 20 | 0.50 | >= 0.95 x Go | MISS |" in text.splitlines()


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5.0), (0.95, 10.0), (0.1, 1.0), (1.0, 10.0)])
def test_percentile_is_the_nearest_rank(share: float, expected: float) -> None:
    assert phases.percentile([float(n) for n in range(1, 11)], share) == expected
