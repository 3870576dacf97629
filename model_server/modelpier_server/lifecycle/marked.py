"""A loaded model whose runs are marked in the crash journal. `bringup` makes it of candidates, and of no others: the
mark costs a fraction of a microsecond per run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from modelpier_server.lifecycle.journal import Mark
from modelpier_server.runtime import Control, Session


class Marked:
    """See `runtime.session.Session`."""

    def __init__(self, session: Session, mark: Mark) -> None:
        self._session, self._mark = session, mark
        self.inputs, self.outputs, self.axes = session.inputs, session.outputs, session.axes
        self.provider, self.instances = session.provider, session.instances
        self.caller_only, self.on_loop = session.caller_only, session.on_loop
        self.lost = session.lost

    @property
    def joins(self) -> bool:
        return self._session.joins

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str], control: Control | None = None
    ) -> list[npt.NDArray[Any]]:
        with self._mark:
            return self._session.run(feeds, outputs, control)

    def prepare(self, most: int) -> None:
        self._session.prepare(most)

    def close(self) -> None:
        self._session.close()
