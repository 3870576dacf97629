"""Sentences of verdicts, for status and Events."""

from __future__ import annotations

from modelpier_operator.decide.analysis import claims
from modelpier_operator.decide.analysis.gates import Gates, Latency, Memory, Rate
from modelpier_operator.decide.analysis.samples import Block, Counts
from modelpier_operator.decide.analysis.state import State

_BAD = {"errors": "failed", "nonfinite": "were answered with NaN or infinity"}


def failed(gate: str, state: State, block: Block, gates: Gates) -> str:
    seen = state.everything
    name, _, kind = gate.partition(".")
    if name in _BAD and kind in {"most", "worse"}:
        rate = gates.errors if name == "errors" else gates.nonfinite
        return _rate((name, kind), seen, block.candidate, rate or Rate(), gates.restart_failures)
    if gate == "agreement":
        of = seen.candidate
        asked = f"at least {_percent(gates.agreement or 0.0)} have to"
        return f"{_share(of.agreed, of.compared)} shadow answers agree with the stable version's; {asked}."
    return _slow(next(g for g in gates.latency if claims.latency_name(g) == gate), seen)


def _rate(gate: tuple[str, str], seen: Block, last: Counts, rate: Rate, restart_failures: int) -> str:
    name, kind = gate
    first = f"{_share(_bad(name, seen.candidate), seen.candidate.requests)} requests of the candidate {_BAD[name]}"
    lately = f" ({_bad(name, last)} of the last {last.requests})" if last.requests else ""
    crashes = f" A restarted container counts as {restart_failures}." if name == "errors" else ""
    if kind == "most":
        return f"{first}{lately}; at most {_percent(rate.most or 0.0)} may.{crashes}"
    theirs = _share(_bad(name, seen.stable), seen.stable.requests)
    allowed = f"at most {_percent(rate.worse or 0.0)} more may"
    return f"{first}{lately}, and {theirs} of the stable version; {allowed}.{crashes}"


def _bad(name: str, counts: Counts) -> int:
    return counts.failed if name == "errors" else counts.nonfinite


def _slow(gate: Latency, seen: Block) -> str:
    ours, theirs = claims.common(seen)
    index = claims.slower(gate, seen) or 0
    return (
        f"{_share(ours.above(index), ours.total)} requests of the candidate took longer than {ours.bounds[index]:g} s, "
        f"and {_share(theirs.above(index), theirs.total)} of the stable version in the same time; "
        f"its {claims.latency_name(gate)} may be at most {gate.ratio:g} times the stable version's."
    )


def too_large(candidate: int, stable: int | None, gate: Memory) -> str:
    limits = [f"{_size(gate.most)}"] if gate.most is not None else []
    if gate.ratio is not None and stable is not None:
        limits.append(f"{gate.ratio:g} times the {_size(stable)} of the stable version")
    return f"A pod of the candidate holds {_size(candidate)}; allowed are {' and '.join(limits)}."


def passed(state: State, gates: Gates) -> str:
    names = ", ".join(claims.keys(gates)) or "no gate"
    return f"{state.step_requests:,} requests in {_seconds(state)} are enough to trust the candidate ({names})."


def going_on(state: State, gates: Gates, lacking: str | None) -> str:
    return f"{state.step_requests:,} requests in {_seconds(state)}; {_missing(gates, lacking)}."


def paused(state: State, gates: Gates, lacking: str | None) -> str:
    why = _missing(gates, lacking) if lacking else "there is enough evidence by now, but a person has to decide"
    return f"{state.step_requests:,} requests in {_seconds(state)} were too few: {why}."


def _missing(gates: Gates, lacking: str | None) -> str:
    if lacking == "minimum_samples":
        return f"at least {gates.minimum_samples:,} are needed"
    return f"{lacking} is neither shown to be good nor to be bad"


def _seconds(state: State) -> str:
    return f"{state.elapsed - state.step_began:.0f} s"


def _share(part: int, whole: int) -> str:
    return f"{_percent(part / whole if whole else 0.0)} of {whole:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _size(number: int) -> str:
    return f"{number / 2**20:,.0f} MiB"
