"""A loaded model that passes everything on to another: tests replace the part that they are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future

import numpy as np

from modelpier_server import runtime
from modelpier_server.contract import TensorSpec
from modelpier_server.runtime.tensors import Axes


class Wrapped:
    def __init__(self, session: runtime.Session) -> None:
        self._session = session

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._session.outputs

    @property
    def axes(self) -> Mapping[str, Axes]:
        return self._session.axes

    @property
    def provider(self) -> str:
        return self._session.provider

    @property
    def instances(self) -> int:
        return self._session.instances

    @property
    def caller_only(self) -> bool:
        return self._session.caller_only

    @property
    def on_loop(self) -> bool:
        return self._session.on_loop

    @property
    def joins(self) -> bool:
        return self._session.joins

    @property
    def lost(self) -> Future[str] | None:
        return self._session.lost

    def run(
        self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], control: runtime.Control | None = None
    ) -> list[np.ndarray]:
        return self._session.run(feeds, outputs, control)

    def prepare(self, most: int) -> None:
        self._session.prepare(most)

    def close(self) -> None:
        self._session.close()
