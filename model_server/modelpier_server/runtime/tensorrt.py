"""What TensorRT must be told before it builds an engine, where the deployment does not say so itself.

Engines take minutes to build. Without a cache every start pays that again; without the shapes that will come, each new
number of rows builds a new one in the middle of a request (onnxruntime#12120). `onnx.load` calls this.
Source: onnxruntime.ai, "TensorRT Execution Provider", explicit shape range, engine and timing cache.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from modelpier_server.contract import Provider, TensorSpec

PROFILES = ("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes")
log = logging.getLogger(__name__)


def completed(provider: Provider, inputs: Sequence[TensorSpec], most: int, place: Path | None) -> Provider:
    """`provider` with a cache in `place` and for 1 to `most` rows, as far as its options leave that open."""
    options = dict(provider.options)
    if place is not None and not options.keys() & {"trt_engine_cache_enable", "trt_engine_cache_path"}:
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(place)}
        if not options.keys() & {"trt_timing_cache_enable", "trt_timing_cache_path"}:
            options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(place)}
    if not options.keys() & set(PROFILES):
        options |= _profiles(inputs, most)
    return replace(provider, options=options)


def _profiles(inputs: Sequence[TensorSpec], most: int) -> dict[str, str]:
    variable = [spec for spec in inputs if -1 in spec.shape]
    if other := [spec.name for spec in variable if -1 in spec.shape[1:]]:
        log.warning(
            "TensorRT will build an engine for each new size: say which will come",
            extra={"inputs": other, "options": ", ".join(PROFILES)},
        )
        return {}
    if not variable:
        return {}
    return {
        name: ",".join(_shape(spec, rows) for spec in variable)
        for name, rows in zip(PROFILES, (1, most, most), strict=True)
    }


def _shape(spec: TensorSpec, rows: int) -> str:
    return f"{spec.name}:" + "x".join(str(rows if size == -1 else size) for size in spec.shape)
