"""What lifecycle needs of the layers below it, as types: real ones are put in by `process`, small ones by tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from modelpier_server.contract import Comparison, Options, PlannedModel
from modelpier_server.repository.fetch import Fetched
from modelpier_server.runtime import Session


class Servable(Protocol):
    """A loaded model that takes requests: `scheduler` makes it."""

    @property
    def in_flight(self) -> int: ...
    @property
    def hung(self) -> bool: ...
    @property
    def batching(self) -> str: ...
    @property
    def compared(self) -> tuple[Comparison, ...]: ...
    def warm_up(self) -> Any: ...
    async def drain(self, timeout: float) -> Any: ...  # noqa: ASYNC109 - the scheduler's signature
    def close(self) -> None: ...


S = TypeVar("S", bound=Servable)


@dataclass(frozen=True)
class Tools(Generic[S]):
    """The three steps of bringing a model up; `fetch` and `load` block, raise ModelError,
    and end early where they can once the event is set.
    """

    fetch: Callable[[PlannedModel, threading.Event], Fetched]
    load: Callable[[Path, Options, threading.Event, str], Session]
    """Of what was fetched; the text is its digest."""
    serve: Callable[[Session, PlannedModel], S]
    mirror: Callable[[Sequence[tuple[PlannedModel, S]]], None]
    """Called with all that is ready, after each change of it and before the models that left are closed: connects
    shadows with those whose requests they repeat."""
    release: Callable[[str], None]
    """Called with the digest of a model that is loaded no more."""
    sweep: Callable[[], None]
    """Called when nothing is being brought up: frees what no loaded model uses. Blocks."""
