"""What a model takes and gives, prepared once so that a request is checked by look-ups.

Made by `scheduler.Servable` from its session; read by the codecs and by the scheduler's own checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from modelpier_server.contract import TensorSpec
from modelpier_server.protocol.datatypes import DATATYPES, Datatype


@dataclass(frozen=True, slots=True)
class Slot:
    """One input or output."""

    spec: TensorSpec
    datatype: Datatype

    @property
    def name(self) -> str:
        return self.spec.name


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs by name, in the model's order."""

    inputs: dict[str, Slot]
    outputs: dict[str, Slot]
    empty_rows: bool = True
    """Whether 0 rows are an input: not where the first axis is the batch, because most graphs fail on an empty batch.
    """

    @classmethod
    def of(cls, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> Signature:
        return cls(_slots(inputs), _slots(outputs))


def _slots(specs: Iterable[TensorSpec]) -> dict[str, Slot]:
    return {spec.name: Slot(spec, DATATYPES[spec.datatype]) for spec in specs}
