from dataclasses import replace

import pytest
from bench.server import plot, report, targets
from bench.server.results import RAW, Cell, Result, Results, decode, encode, split_between
from bench.server.targets import SINGLES, Line

SPLIT = {"queue": 1.0, "compute_input": 2.0, "compute_infer": 3.0, "compute_output": 4.0}
ALL_WELL: dict[str, float] = {
    "batching on, p50": 0.105,
    "batching off, p50": 0.1,
    **{
        f"overload {model}, {name}": value
        for model in ("tabular", "image")
        for name, value in {
            "p99 at 64": 10.0,
            "p99 at 256": 20.0,
            "accepted per second": 5.0,
            "429": 7.0,
            "429 without Retry-After": 0.0,
            "other answers": 0.0,
            "resets": 0.0,
            "wrong": 0.0,
        }.items()
    },
    "small requests beside large bodies, p99": 19.0,
    "small requests beside large bodies, most": 30.0,
    "small requests alone, p99": 1.0,
    "large bodies, rate": 40.0,
    "start tabular": 0.7,
    "start tabular, session": 0.3,
    "start large": 1.5,
    "start large, session": 1.0,
    "start large, again": 1.2,
    "memory tabular": 100.0,
    "memory tabular, session": 40.0,
    "memory large": 300.0,
    "memory large, session": 240.0,
}


def run(who: str, model: str, rate: float, cpu: float = 20.0, concurrency: int = 64, **more: object) -> Result:
    wire = str(more.pop("wire", "JSON"))
    latencies = {"mean": 1.0, "p50": float(str(more.pop("p50", 1.0))), "p90": 1.0, "p95": 1.0, "p99": 2.0}
    cell = Cell(who, model, wire, concurrency, main=wire != "grpc")
    return replace(Result(cell, 1, rate, cpu, latencies, samples=4), **more)  # type: ignore[arg-type]


def contest(ours: float = 8000.0) -> Results:
    runs = [
        run("modelpier", "tabular", ours, split=SPLIT),
        run("modelpier", "tabular", 5000, concurrency=1, p50=0.15),
        run("no-op", "tabular", 9000, concurrency=1, p50=0.1),
        run("no-op", "tabular", 20_000, 8.0),
        run("bare loop", "tabular", 21_000, 7.0),
        run("FastAPI", "tabular", 2600),
        run("MLServer", "tabular", 1000, 400.0),
        run("KServe", "tabular", 900),
        run("modelpier", "tabular", 3000, wire="grpc"),
        run("MLServer", "tabular", 2000, wire="grpc"),
        run("KServe", "tabular", 2100, wire="grpc"),
        run("modelpier", "image", 85, concurrency=16, wire="binary"),
        run("FastAPI", "image", 50, concurrency=16),
        run(RAW, "image", 100, concurrency=16, wire="none"),
    ]
    notes = {"best layout, image": "3 x 1", "date": "2026-01-02", "machine": "a <machine>", "comparable": "yes"}
    return Results(runs, {"Ray Serve, image": "cannot be installed"}, dict(ALL_WELL), notes)


def line(results: Results, target: str) -> Line:
    return next(found for found in targets.lines(results, comparable=True) if target in f"{found.name}: {found.target}")


@pytest.mark.parametrize(("ours", "passed"), [(8000.0, True), (7999.0, False)])
def test_the_best_peer_is_the_measure(ours: float, passed: bool) -> None:
    found = line(contest(ours), ">= 8 x the best peer")
    assert found.target == ">= 8 x the best peer (MLServer)"
    assert found.passed is passed


def test_fastapi_is_no_peer_for_the_small_model_but_for_pictures() -> None:
    assert line(contest(), ">= 3 x FastAPI").passed is True
    assert line(contest(7000), ">= 3 x FastAPI").passed is False
    assert line(contest(), "image, c=16, requests/s: >= 1.5 x").target == ">= 1.5 x the best peer (FastAPI)"


def test_the_limits_are_the_noop_and_onnx_runtime() -> None:
    assert line(contest(), "the no-op").measured == "8,000 / 20,000 = 0.40"
    assert line(contest(), "best layout").passed is True


def test_grpc_is_compared_with_both_of_the_others() -> None:
    assert line(contest(), "1.5 x MLServer").passed is True
    assert line(contest(), "1.5 x KServe").passed is False


def test_a_median_over_the_rounds_counts() -> None:
    results = contest()
    results.runs += [run("modelpier", "tabular", rate) for rate in (1.0, 9000.0)]
    assert results.rate(results.main("modelpier", "tabular", 64)) == 8000.0


def test_latency_beyond_the_noop_is_a_difference() -> None:
    assert line(contest(), "p50 beyond").passed is True
    results = contest()
    results.runs[1] = run("modelpier", "tabular", 5000, concurrency=1, p50=0.16)
    assert line(results, "p50 beyond").passed is False


@pytest.mark.parametrize(
    ("figure", "value", "name"),
    [
        ("batching on, p50", 0.12, "with batching and without"),
        ("overload image, p99 at 256", 20.1, "overload, image, c=256: p99"),
        ("overload tabular, resets", 1.0, "overload, tabular, c=256: answers"),
        ("overload tabular, 429 without Retry-After", 1.0, "overload, tabular, c=256: answers"),
        ("overload tabular, other answers", 1.0, "overload, tabular, c=256: answers"),
        ("overload tabular, wrong", 1.0, "overload, tabular, c=256: answers"),
        ("overload tabular, accepted per second", 0.0, "overload, tabular, c=256: answers"),
        ("small requests beside large bodies, p99", 20.1, "beside JSON"),
        ("start tabular", 0.71, "ready, small model"),
        ("start large", 1.51, "ready, 105 MB model"),
        ("memory tabular", 101.0, "memory, small model"),
        ("memory large", 301.0, "memory, 105 MB model"),
    ],
)
def test_each_single_figure_can_miss_its_target(figure: str, value: float, name: str) -> None:
    results = contest()
    assert line(results, name).passed is True
    results.singles[figure] = value
    assert line(results, name).passed is False


def test_what_was_not_measured_is_not_judged() -> None:
    found = targets.lines(Results(notes=contest().notes), comparable=True)
    assert {one.passed for one in found} == {None}
    assert len(found) >= len(SINGLES) + 9


def test_on_another_machine_only_rates_are_not_comparable() -> None:
    found = targets.lines(contest(100.0), comparable=False)
    rates = [one for one in found if "requests/s" in one.name]
    assert {one.comparable for one in rates} == {False}
    assert all(one.comparable for one in found if "requests/s" not in one.name)
    assert "MISSED (not comparable)" in {one.verdict for one in rates}
    assert targets.missed(found) == []


def test_cpu_is_shown_as_a_share_of_the_others() -> None:
    assert line(contest(), "share of best peer's").measured == "20 / 400 us = 0.050"
    assert line(contest(), "share of KServe's").passed is None


def test_the_report_names_whoever_failed_and_whoever_was_limited() -> None:
    results = contest()
    results.runs[0] = replace(results.runs[0], failed=3, wrong=1, client=0.97)
    text = report.contest(results)
    row = next(row for row in text.splitlines() if row.startswith("| modelpier | JSON | 64"))
    assert row.endswith("97 % | 0.0 | 3 failed, 1 wrong, limited by the generator |")
    assert "| ONNX Runtime | none | - | 100 |" in text
    assert "1 were wrong" in report.checked(results)
    assert report.left_out(results) == "- Ray Serve, image: cannot be installed"


def test_the_load_report_has_the_servers_own_split() -> None:
    (row,) = (row for row in report.load_report(contest()).splitlines() if row.startswith("| tabular, JSON | 64 "))
    assert row == "| tabular, JSON | 64 | 8,000 | 1.00 | 1.00 | 1.00 | 1.00 | 2.00 | 1 | 2 | 3 | 4 |"


def test_a_split_is_per_request_between_two_readings() -> None:
    def reading(count: int, nanoseconds: int) -> dict[str, object]:
        parts = {part: {"count": count, "ns": nanoseconds} for part in (*SPLIT, "success")}
        return {"inference_stats": parts}

    assert split_between(reading(10, 5000), reading(12, 9000)) == dict.fromkeys(SPLIT, 2.0)
    assert split_between(reading(10, 5000), reading(10, 5000)) == {}
    assert split_between(None, reading(1, 1)) == {}


def test_results_travel() -> None:
    assert decode(encode(contest())) == contest()


def test_the_plot_has_everybody_and_both_grounds() -> None:
    drawn = plot.svg(contest())
    assert drawn.count("<circle") == 9
    assert drawn.count('class="limit"') == 3
    assert "prefers-color-scheme: dark" in drawn
    assert "a &lt;machine&gt;" in drawn


def test_a_logarithmic_axis() -> None:
    scale = plot.Scale.around([90.0, 20_000.0])
    assert (scale.low, scale.high) == (1, 5)
    assert scale.at(1000.0) == pytest.approx((scale.at(10.0) + scale.at(100_000.0)) / 2)
