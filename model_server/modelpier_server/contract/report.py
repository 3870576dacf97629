"""What a server says of itself: its models and the plan that it holds. Servers write it, the operator reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from modelpier_server.contract import decoding
from modelpier_server.contract.differences import Comparison, read_comparison
from modelpier_server.contract.states import FailureReason, ModelState


@dataclass(frozen=True)
class TensorSpec:
    """Open Inference Protocol: datatype such as FP32; -1 for a variable dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelReport:
    name: str
    revision: str
    version: str
    state: ModelState
    digest: str | None = None
    provider: str | None = None
    reason: FailureReason | None = None
    message: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds: download, load, warm_up, golden_tests."""
    size_bytes: int = 0
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    batching: str = ""
    """What warm-up has found out about requests that share a run."""
    shadow: tuple[Comparison, ...] = ()
    """Of a shadow: how its answers differ, as of when the report was made; they make no new `serial`."""


@dataclass(frozen=True)
class Report:
    """What a server says of itself at STATE_PATH."""

    serial: int
    """Grows with every change."""
    ready: bool
    generation: int
    """Of the plan that is held; 0 when there is none."""
    plan_error: str
    """Why the newest plan offered was refused; empty when it was taken."""
    models: tuple[ModelReport, ...]

    def encode(self) -> bytes:
        return decoding.dump(asdict(self))

    @classmethod
    def decode(cls, raw: bytes | str) -> Report:
        """Raises ContractError naming the field."""
        data = decoding.mapping(decoding.parse(raw, "report"), "report")
        return cls(
            serial=decoding.whole(data, "serial", "report"),
            ready=bool(data.get("ready")),
            generation=decoding.whole(data, "generation", "report"),
            plan_error=str(data.get("plan_error", "")),
            models=tuple(
                _report(m, f"report.models[{i}]") for i, m in enumerate(decoding.array(data, "models", "report"))
            ),
        )


def _report(value: Any, where: str) -> ModelReport:
    data = decoding.mapping(value, where)
    return ModelReport(
        name=decoding.text(data, "name", where),
        revision=decoding.text(data, "revision", where),
        version=decoding.text(data, "version", where),
        state=decoding.member(ModelState, data, "state", where),
        digest=decoding.optional_text(data, "digest", where),
        provider=decoding.optional_text(data, "provider", where),
        reason=None if data.get("reason") is None else decoding.member(FailureReason, data, "reason", where),
        message=str(data.get("message", "")),
        timings={
            str(k): decoding.number(v, f"{where}.timings")
            for k, v in decoding.mapping(data.get("timings") or {}, f"{where}.timings").items()
        },
        size_bytes=decoding.whole(data, "size_bytes", where, default=0),
        inputs=_tensors(data, "inputs", where),
        outputs=_tensors(data, "outputs", where),
        batching=str(data.get("batching", "")),
        shadow=_comparisons(data, where),
    )


def _comparisons(data: Mapping[str, Any], where: str) -> tuple[Comparison, ...]:
    found = decoding.array(data, "shadow", where) if data.get("shadow") else []
    return tuple(read_comparison(value, f"{where}.shadow[{i}]") for i, value in enumerate(found))


def _tensors(data: Mapping[str, Any], key: str, where: str) -> tuple[TensorSpec, ...]:
    found = decoding.array(data, key, where) if data.get(key) else []
    return tuple(_tensor(value, f"{where}.{key}[{i}]") for i, value in enumerate(found))


def _tensor(value: Any, where: str) -> TensorSpec:
    data = decoding.mapping(value, where)
    shape = decoding.array(data, "shape", where)
    if any(isinstance(size, bool) or not isinstance(size, int) for size in shape):
        raise decoding.ContractError(f"{where}.shape: must be an array of whole numbers")
    return TensorSpec(decoding.text(data, "name", where), decoding.text(data, "datatype", where), tuple(shape))
