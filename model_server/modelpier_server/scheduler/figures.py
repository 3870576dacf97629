"""What `mirror` has found out about a shadow, added up: for the report, and as text for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modelpier_server.contract import Comparison, Outcome
from modelpier_server.scheduler.compare import Difference
from modelpier_server.telemetry import RECENT, Histogram, escape, family

MAGNITUDES = tuple(10.0**power for power in range(-9, 4))
Key = tuple[str, str, str]
"""Model, the version that has answered, the shadow's version."""


@dataclass(slots=True, eq=False)
class OutputFigures:
    """Of one output. The histograms have one value per request: its largest difference."""

    total: Difference = field(default_factory=Difference)
    absolute: Histogram = field(default_factory=lambda: Histogram(MAGNITUDES))
    relative: Histogram = field(default_factory=lambda: Histogram(MAGNITUDES))
    distance: Histogram = field(default_factory=lambda: Histogram(MAGNITUDES))
    """1 - the least cosine."""

    def add(self, found: Difference) -> None:
        self.total.add(found)
        if not found.rows:
            return
        values = (found.max_absolute, found.max_relative, 1.0 - found.least_cosine)
        for histogram, value in zip((self.absolute, self.relative, self.distance), values, strict=True):
            histogram.recent.append(value)
            if len(histogram.recent) >= RECENT:
                histogram.settle()


@dataclass(slots=True, eq=False)
class Figures:
    """One shadow against one version that answers."""

    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    outputs: dict[str, OutputFigures] = field(default_factory=dict)

    def add(self, found: Mapping[str, Difference]) -> None:
        self.outcomes[Outcome.COMPARED] += 1
        for name, difference in found.items():
            self.outputs.setdefault(name, OutputFigures()).add(difference)

    def report(self, version: str) -> Comparison:
        outputs = tuple(figures.total.report(name) for name, figures in self.outputs.items())
        return Comparison(version, {o.value: count for o, count in self.outcomes.items()}, outputs)


_COUNTERS = (
    ("elements", "elements", "Elements of outputs that were compared"),
    ("equal_elements", "equal", "Elements that were exactly the same"),
    ("nonfinite_elements", "nonfinite", "Elements of which only one side was NaN or infinite"),
    ("top1_rows", "top1_rows", "Rows whose largest class was compared"),
    ("top1_agreed", "top1_agreed", "Rows with the same largest class"),
)
_HISTOGRAMS = (
    ("absolute_difference", "absolute", "Largest absolute difference of each request"),
    ("relative_difference", "relative", "Largest relative difference of each request"),
    ("cosine_distance", "distance", "1 - the least cosine similarity of each request's rows"),
)


def render(found: Sequence[tuple[Key, Figures]], runs: Sequence[tuple[tuple[str, str], Histogram]]) -> Iterator[str]:
    """`runs`: how long each shadow takes, by its model and version."""
    if not runs:
        return
    name = "modelpier_shadow_requests_total"
    yield from family(name, "counter", "Answered requests that were to be repeated on a shadow, by what became of it")
    for key, figures in found:
        for outcome, count in figures.outcomes.items():
            yield f'{name}{{{_labels(key)},outcome="{outcome}"}} {count}'
    outputs = [
        (f'{_labels(key)},output="{escape(output)}"', kept)
        for key, figures in found
        for output, kept in figures.outputs.items()
    ]
    for suffix, attribute, text in _COUNTERS:
        name = f"modelpier_shadow_{suffix}_total"
        yield from family(name, "counter", text)
        yield from (f"{name}{{{labels}}} {getattr(kept.total, attribute)}" for labels, kept in outputs)
    for suffix, attribute, text in _HISTOGRAMS:
        name = f"modelpier_shadow_{suffix}"
        yield from family(name, "histogram", text)
        for labels, kept in outputs:
            yield from getattr(kept, attribute).lines(name, labels)
    name = "modelpier_shadow_run_duration_seconds"
    yield from family(name, "histogram", "Of a shadow's runs")
    for (model, version), histogram in runs:
        yield from histogram.lines(name, f'model="{escape(model)}",shadow_version="{escape(version)}"')


def _labels(key: Key) -> str:
    model, version, shadow = map(escape, key)
    return f'model="{model}",version="{version}",shadow_version="{shadow}"'
