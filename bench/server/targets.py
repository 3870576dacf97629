"""The targets of the server and whether they were met. Pure; used by report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.server.client.load import GRPC
from bench.server.contestants import BARE, FASTAPI, NOOP, OURS
from bench.server.results import RAW, Cell, Results

PEERS = ("MLServer", "KServe", "BentoML", "LitServe", "Ray Serve", "PyTriton")
ANYBODY = (*PEERS, FASTAPI)
LIMITED = 0.9
"""Share of its core from which on the load generator is itself what is measured."""


@dataclass(frozen=True)
class Line:
    """A target. `passed` None: nothing to compare with, or only shown; `comparable`: whether it says anything here."""

    name: str
    measured: str
    target: str
    passed: bool | None
    comparable: bool = True

    @property
    def verdict(self) -> str:
        if self.passed is None:
            return ""
        word = "met" if self.passed else "MISSED"
        return word if self.comparable else f"{word} (not comparable)"


def lines(results: Results, *, comparable: bool) -> list[Line]:
    """`comparable`: three cores for the server and one for the load generator."""
    found = [*_tabular(results), *_models(results), *_grpc(results)]
    if not comparable:
        found = [Line(one.name, one.measured, one.target, one.passed, comparable=False) for one in found]
    return [*found, *_costs(results), *_singles(results)]


def _at_least(name: str, ours: float | None, theirs: float | None, factor: float, who: str) -> Line:
    target = f">= {factor:g} x {who}"
    if ours is None or not theirs:
        return Line(name, "-", target, None)
    return Line(name, f"{ours:,.0f} / {theirs:,.0f} = {ours / theirs:.2f}", target, ours >= factor * theirs)


def _named(cell: Cell | None, fallback: str) -> str:
    return fallback if cell is None else f"{fallback} ({cell.contestant})"


# ------------------------------------------------------------------------------------------ throughput
def _tabular(results: Results) -> list[Line]:
    rate = results.rate(results.main(OURS, "tabular", 64))
    best = results.best(PEERS, "tabular", 64)
    fastapi, noop = (results.rate(results.main(name, "tabular", 64)) for name in (FASTAPI, NOOP))
    name = "tabular JSON, c=64, requests/s"
    return [
        _at_least(name, rate, results.rate(best), 8, _named(best, "the best peer")),
        _at_least(name, rate, fastapi, 3, "FastAPI, one process each"),
        _at_least(name, rate, noop, 0.40, "the no-op of the same transport"),
    ]


def _models(results: Results) -> list[Line]:
    found = []
    for model, factor in (("image", 1.5), ("text", 1.2)):
        rate = results.rate(results.main(OURS, model, 16))
        raw, best = results.rate(results.main(RAW, model, 16)), results.best(ANYBODY, model, 16)
        name = f"{model}, c=16, requests/s"
        found += [
            _at_least(name, rate, raw, 0.80, "ONNX Runtime's best layout"),
            _at_least(name, rate, results.rate(best), factor, _named(best, "the best peer")),
        ]
    return found


def _of_grpc(results: Results, name: str) -> Cell | None:
    return next(
        (cell for cell in results.cells() if (cell.contestant, cell.wire, cell.concurrency) == (name, GRPC, 64)), None
    )


def _grpc(results: Results) -> list[Line]:
    rate = results.rate(_of_grpc(results, OURS))
    return [
        _at_least("gRPC ModelInfer, tabular, c=64, requests/s", rate, results.rate(_of_grpc(results, name)), 1.5, name)
        for name in ("MLServer", "KServe")
    ]


# ------------------------------------------------------------------------------------------ CPU
def _costs(results: Results) -> list[Line]:
    cell, name = results.main(OURS, "tabular", 64), "server's CPU per tabular JSON request, c=64"
    ours = results.cpu(cell)
    if ours is None:
        return []
    found = [Line(f"{name}, us", f"{ours:.1f}", "<= 30", ours <= 30)]
    peers = ((results.best(PEERS, "tabular", 64), "best peer's"), (results.main(FASTAPI, "tabular", 64), "FastAPI's"))
    others = ((results.main(NOOP, "tabular", 64), "no-op's"), (results.main(BARE, "tabular", 64), "bare loop's"))
    found += [_share(name, ours, results.cpu(other), who) for other, who in (*peers, *others)]
    for model in ("image", "text"):
        raw, mine = results.cpu(results.main(RAW, model, 16)), results.cpu(results.main(OURS, model, 16))
        if mine is not None:
            found.append(_share(f"server's CPU per {model} request, c=16", mine, raw, "ONNX Runtime's"))
    called = results.cpu(_of_grpc(results, OURS))
    for who in ("MLServer", "KServe", NOOP):
        if called is not None:
            theirs = results.cpu(_of_grpc(results, who))
            found.append(_share("server's CPU per call over gRPC, c=64", called, theirs, f"{who}'s"))
    return found


def _share(name: str, ours: float, theirs: float | None, who: str) -> Line:
    text = f"{ours:,.0f} / {theirs:,.0f} us = {ours / theirs:.3f}" if theirs else "-"
    return Line(f"{name}, share of {who}", text, "", None)


# ------------------------------------------------------------------------------------------ single figures
@dataclass(frozen=True)
class Single:
    """`figures`: names of singles.py; `judge` gets them."""

    name: str
    figures: Sequence[str]
    show: Callable[..., str]
    target: str
    judge: Callable[..., bool]


def _overload(model: str) -> list[Single]:
    prefix = f"overload {model}, "
    return [
        Single(
            f"overload, {model}, c=256: p99 of accepted, ms",
            [f"{prefix}p99 at 256", f"{prefix}p99 at 64"],
            lambda much, usual: f"{much:.1f} / {usual:.1f} = {much / usual:.2f}",
            "<= 2 x that at c=64",
            lambda much, usual: much <= 2 * usual,
        ),
        Single(
            f"overload, {model}, c=256: answers",
            [
                prefix + name
                for name in (
                    "accepted per second",
                    "429",
                    "other answers",
                    "429 without Retry-After",
                    "resets",
                    "wrong",
                )
            ],
            lambda rate, refused, other, hasty, resets, wrong: (
                f"{rate:,.0f}/s accepted, {refused:,.0f} x 429 ({hasty:.0f} without Retry-After), {other:.0f} others, "
                f"{resets:.0f} resets, {wrong:.0f} wrong"
            ),
            "200, or 429 with Retry-After; 0 resets",
            lambda rate, _refused, other, hasty, resets, wrong: rate > 0 and not other + hasty + resets + wrong,
        ),
    ]


SINGLES: Sequence[Single] = (
    Single(
        "tabular JSON, c=1: p50 beyond the no-op's, us",
        ["tabular alone, p50", "no-op alone, p50"],
        lambda ours, noop: f"{1e3 * ours:.0f} - {1e3 * noop:.0f} = {1e3 * (ours - noop):.0f}",
        "<= 50",
        lambda ours, noop: ours - noop <= 0.05,
    ),
    Single(
        "tabular JSON, c=1: p50 with batching and without, us",
        ["batching on, p50", "batching off, p50"],
        lambda on, off: f"{1e3 * on:.0f} / {1e3 * off:.0f} = {on / off:.2f}",
        "<= 1.10",
        lambda on, off: on <= 1.10 * off,
    ),
    *_overload("tabular"),
    *_overload("image"),
    Single(
        "small requests beside JSON of 1.6 MB: p99, ms",
        [
            "small requests beside large bodies, p99",
            "small requests alone, p99",
            "small requests beside large bodies, most",
            "large bodies, rate",
        ],
        lambda beside, alone, most, rate: f"{beside:.1f} (alone {alone:.1f}; most {most:.0f}; {rate:.0f} large ones/s)",
        "<= 20",
        lambda beside, *_: beside <= 20,
    ),
    Single(
        "process start to ready, small model, s",
        ["start tabular", "start tabular, session"],
        lambda ours, session: f"{ours:.2f} (a bare session {session:.2f})",
        "<= 0.7",
        lambda ours, _: ours <= 0.7,
    ),
    Single(
        "process start to ready, 105 MB model, s",
        ["start large", "start large, session", "start large, again"],
        lambda ours, session, again: f"{ours:.2f} / {session:.2f} = {ours / session:.2f} (with its cache: {again:.2f})",
        "<= 1.5 x a bare session",
        lambda ours, session, _: ours <= 1.5 * session,
    ),
    *(
        Single(
            f"resident memory, {model}, MiB beyond a bare session",
            [f"memory {name}", f"memory {name}, session"],
            lambda ours, session: f"{ours:.0f} - {session:.0f} = {ours - session:.0f}",
            "<= 60",
            lambda ours, session: ours - session <= 60,
        )
        for name, model in (("tabular", "small model"), ("large", "105 MB model"))
    ),
)


def _singles(results: Results) -> list[Line]:
    figures: dict[str, float | None] = {
        **results.singles,
        "tabular alone, p50": results.latency(results.main(OURS, "tabular", 1), "p50"),
        "no-op alone, p50": results.latency(results.main(NOOP, "tabular", 1), "p50"),
    }
    return [_single(single, figures) for single in SINGLES]


def _single(single: Single, figures: Mapping[str, float | None]) -> Line:
    values = [figures.get(name) for name in single.figures]
    if any(value is None for value in values):
        return Line(single.name, "-", single.target, None)
    return Line(single.name, single.show(*values), single.target, single.judge(*values))


def missed(found: Sequence[Line]) -> list[str]:
    return [line.name for line in found if line.passed is False and line.comparable]
