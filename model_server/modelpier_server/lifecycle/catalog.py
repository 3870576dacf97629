"""What is served right now. `transport` asks it once per request; `follower` replaces the whole table at once.

A swap of revisions is therefore atomic: a request sees the table before or the table after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar, runtime_checkable

from modelpier_server.contract import Limits, ModelReport, PlannedModel, Role
from modelpier_server.errors import NotFound, Unavailable

RETRY_AFTER = 1.0

S = TypeVar("S")
"""What takes requests. The catalog hands it out and asks nothing of it, but whether it hangs."""


@runtime_checkable
class Hanging(Protocol):
    @property
    def hung(self) -> bool: ...


@dataclass(frozen=True)
class Entry(Generic[S]):
    planned: PlannedModel
    servable: S


class Turns(Generic[S]):
    """Smooth weighted round robin: among any W requests in a row, W being the sum of weights, each gets exactly its
    weight, and they are spread as evenly as can be (the algorithm of nginx's upstream module).
    """

    __slots__ = ("_credit", "_only", "_total", "_weights", "entries")

    def __init__(self, entries: Sequence[Entry[S]]) -> None:
        self.entries = tuple(entries)
        self._weights = _weights(self.entries)
        self._total = sum(self._weights)
        self._credit = [0] * len(self.entries)
        self._only = self.entries[0].servable if len(self.entries) == 1 and self._total else None

    def next(self) -> S | None:
        """None when no entry may take requests that name no version."""
        if self._only is not None or not self._total:
            return self._only
        best = -1
        for i, weight in enumerate(self._weights):
            self._credit[i] += weight
            if weight and (best < 0 or self._credit[i] > self._credit[best]):
                best = i
        self._credit[best] -= self._total
        return self.entries[best].servable


def _weights(entries: Sequence[Entry[S]]) -> list[int]:
    """Those of the plan. When none is left (the candidate that had it all has failed), the required ones share it."""
    weights = [e.planned.weight for e in entries]
    return weights if any(weights) else [int(e.planned.role is Role.REQUIRED) for e in entries]


class Catalog(Generic[S]):
    """`ready`, `live` and `draining` answer the health routes."""

    def __init__(self) -> None:
        self.draining = False
        self.watchers: set[Callable[[], None]] = set()
        """Called after every change."""
        self._complete = False
        self._any: dict[str, Turns[S]] = {}
        self._versions: dict[tuple[str, str], Turns[S]] = {}
        self._planned: frozenset[tuple[str, str]] = frozenset()
        self._reports: tuple[ModelReport, ...] = ()
        self._serving: tuple[S, ...] = ()
        self._max_body_bytes = Limits().max_body_bytes

    @property
    def live(self) -> bool:
        """False when only another process can help: a thread hangs in a run for good. While draining the end is near
        anyhow, and what still runs must not be cut off.
        """
        return self.draining or not any(isinstance(s, Hanging) and s.hung for s in self._serving)

    @property
    def ready(self) -> bool:
        return self._complete and not self.draining

    def find(self, name: str, version: str | None = None) -> S:
        """Who answers the next request for `name`; without a version the plan's weights decide.

        Raises NotFound, or Unavailable for what is planned and not ready.
        """
        turns = self._any.get(name) if version is None else self._versions.get((name, version))
        found = turns.next() if turns is not None else None
        if found is None:
            raise self._absent(name, version)
        return found

    def max_body_bytes(self) -> int:
        """The largest limit of all models that answer requests; that of the contract where there is none."""
        return self._max_body_bytes

    def names(self) -> tuple[str, ...]:
        """Of all models that answer requests."""
        return tuple(self._any)

    def describe(self) -> tuple[ModelReport, ...]:
        """All planned models, served or not."""
        return self._reports

    def serving(self) -> tuple[S, ...]:
        """All that answer requests; takes no turn of the weights."""
        return self._serving

    def publish(
        self,
        entries: Sequence[Entry[S]],
        planned: Sequence[PlannedModel],
        reports: Sequence[ModelReport],
        *,
        complete: bool,
    ) -> None:
        """Replaces everything at once. Turns go on where they were for groups that stay as they are."""
        by_name: dict[str, list[Entry[S]]] = {}
        by_version: dict[tuple[str, str], list[Entry[S]]] = {}
        for entry in entries:
            by_name.setdefault(entry.planned.name, []).append(entry)
            by_version.setdefault((entry.planned.name, entry.planned.version), []).append(entry)
        self._any = {name: _turns(self._any.get(name), group) for name, group in by_name.items()}
        self._versions = {key: _turns(self._versions.get(key), _asked_for(group)) for key, group in by_version.items()}
        self._planned = frozenset((m.name, m.version) for m in planned)
        self._reports = tuple(reports)
        self._serving = tuple(entry.servable for entry in entries)
        self._complete = complete
        limits = [entry.planned.options.limits.max_body_bytes for entry in entries]
        self._max_body_bytes = max(limits, default=Limits().max_body_bytes)
        for watcher in self.watchers:
            watcher()

    def _absent(self, name: str, version: str | None) -> NotFound | Unavailable:
        versions = {v for n, v in self._planned if n == name}
        if not versions:
            return NotFound(f"model {name!r} is not served here; GET /v2 lists what is" if self._planned else _EMPTY)
        if version is not None and version not in versions:
            return NotFound(f"version {version!r} of model {name!r} is not served here")
        return Unavailable(f"model {name!r} is not ready yet", RETRY_AFTER)


_EMPTY = "no model is served here yet"


def _turns(held: Turns[S] | None, group: Sequence[Entry[S]]) -> Turns[S]:
    return held if held is not None and held.entries == tuple(group) else Turns(group)


def _asked_for(group: Sequence[Entry[S]]) -> Sequence[Entry[S]]:
    """A version that is asked for by name answers whatever its weight is; of two revisions with one label, the one that
    has a weight.
    """
    if any(entry.planned.weight for entry in group):
        return group
    return [replace(entry, planned=replace(entry.planned, weight=1)) for entry in group]
