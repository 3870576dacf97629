"""Triton's model configuration, as far as this server has what it speaks of: what clients ask it for before they send.

Source: Triton's `extension_model_configuration.md` and the message ModelConfig of `model_config.proto`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelpier_server.contract import TensorSpec

PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
CPU_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class Facts:
    """What is known of one served model."""

    name: str
    versions: Sequence[str]
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    provider: str
    instances: int
    max_rows: int
    """Rows that a run may hold; 0: requests never share one."""
    batching: str
    """What was found out about batches."""


def model_config(facts: Facts) -> dict[str, Any]:
    """`max_batch_size` above 0: as in Triton, requests share runs, and `dims` leave out the first axis."""
    skip = 1 if facts.max_rows else 0
    config: dict[str, Any] = {
        "name": facts.name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "version_policy": _versions(facts.versions),
        "max_batch_size": facts.max_rows,
        "input": [_tensor(spec, skip) for spec in facts.inputs],
        "output": [_tensor(spec, skip) for spec in facts.outputs],
        "instance_group": [_instances(facts)],
        "default_model_filename": "model.onnx",
        "parameters": {"batching": {"string_value": facts.batching}},
    }
    if facts.max_rows:
        config["dynamic_batching"] = {
            "preferred_batch_size": [],
            "max_queue_delay_microseconds": 0,
            "preserve_ordering": False,
        }
    return config


def _versions(versions: Sequence[str]) -> dict[str, Any]:
    """Triton's are numbers; here any label may be one."""
    if all(version.isdecimal() for version in versions):
        return {"specific": {"versions": [int(version) for version in versions]}}
    return {"latest": {"num_versions": len(versions)}}


def _tensor(spec: TensorSpec, skip: int) -> dict[str, Any]:
    datatype = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{datatype}", "dims": list(spec.shape[skip:])}


def _instances(facts: Facts) -> dict[str, Any]:
    kind = "KIND_CPU" if facts.provider == CPU_PROVIDER else "KIND_GPU"
    return {"name": facts.name, "kind": kind, "count": max(1, facts.instances)}
