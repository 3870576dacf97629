"""What the transport needs to know of the models that are served: `lifecycle` knows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from modelpier_server.contract import ModelReport
from modelpier_server.scheduler.servable import Servable


class Catalog(Protocol):
    """Asked on the event loop, once per request."""

    watchers: set[Callable[[], None]]
    """Called after every change."""

    @property
    def ready(self) -> bool:
        """All required models are served and the server is not draining."""

    @property
    def live(self) -> bool: ...

    @property
    def draining(self) -> bool: ...

    def find(self, name: str, version: str | None = None) -> Servable:
        """Who answers the next request. Raises NotFound, or Unavailable for what is planned and not ready."""

    def max_body_bytes(self) -> int:
        """The largest limit of all models that answer requests; that of the contract where there is none."""

    def names(self) -> Sequence[str]:
        """Of all models that answer requests."""

    def serving(self) -> Sequence[Servable]:
        """All that answer requests; takes no turn of the weights, as `find` does."""

    def describe(self) -> Sequence[ModelReport]:
        """All planned models, served or not."""
