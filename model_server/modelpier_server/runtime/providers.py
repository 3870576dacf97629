"""Execution providers: which may be asked for, with which options, and whether this ONNX Runtime has them.

ONNX Runtime takes unknown options without a word and falls back to the CPU with a mere warning; both are errors here.
Sources: onnxruntime.ai, "CUDA Execution Provider" and "TensorRT Execution Provider", configuration options.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelpier_server.contract import FailureReason, Provider
from modelpier_server.errors import ModelError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

OPTIONS: dict[str, frozenset[str]] = {
    CPU: frozenset(),
    CUDA: frozenset({
        "arena_extend_strategy", "cudnn_conv1d_pad_to_nc1d", "cudnn_conv_algo_search", "cudnn_conv_use_max_workspace",
        "device_id", "do_copy_in_default_stream", "enable_cuda_graph", "enable_skip_layer_norm_strict_mode",
        "fuse_conv_bias", "gpu_mem_limit", "prefer_nhwc", "sdpa_kernel", "tunable_op_enable",
        "tunable_op_max_tuning_duration_ms", "tunable_op_tuning_enable", "use_ep_level_unified_stream", "use_tf32",
    }),
    TENSORRT: frozenset({
        "device_id", "trt_auxiliary_streams", "trt_bf16_enable", "trt_build_heuristics_enable",
        "trt_builder_optimization_level", "trt_context_memory_sharing_enable", "trt_cuda_graph_enable",
        "trt_dla_core", "trt_dla_enable", "trt_engine_cache_enable", "trt_engine_cache_path",
        "trt_engine_cache_prefix", "trt_engine_hw_compatible", "trt_force_sequential_engine_build",
        "trt_fp16_enable", "trt_int8_calibration_table_name", "trt_int8_enable",
        "trt_int8_use_native_calibration_table", "trt_layer_norm_fp32_fallback", "trt_max_partition_iterations",
        "trt_max_workspace_size", "trt_min_subgraph_size", "trt_profile_max_shapes", "trt_profile_min_shapes",
        "trt_profile_opt_shapes", "trt_sparsity_enable", "trt_timing_cache_enable", "trt_timing_cache_path",
    }),
}  # fmt: skip


def captures(asked: Sequence[Provider]) -> bool:
    """Whether runs are to be captured as CUDA graphs."""
    return asked[0].name == CUDA and asked[0].options.get("enable_cuda_graph", "0").lower() in {"1", "true"}


def check(asked: Sequence[Provider], available: Sequence[str]) -> None:
    """Raises ModelError(PROVIDER_UNAVAILABLE) naming the provider or option that cannot be had."""
    for provider in asked:
        allowed = OPTIONS.get(provider.name)
        if allowed is None:
            raise _unavailable(f"provider '{provider.name}' is none of {', '.join(OPTIONS)}")
        if provider.name not in available:
            raise _unavailable(f"provider '{provider.name}' is not in this image; it has {', '.join(available)}")
        if unknown := sorted(set(provider.options) - allowed):
            known = ", ".join(sorted(allowed)) or "none"
            raise _unavailable(f"provider '{provider.name}': unknown option '{unknown[0]}'; known: {known}")


def check_taken(asked: Sequence[Provider], taken: Sequence[str]) -> None:
    """Raises ModelError unless the session really runs on what was asked for, in that order."""
    names = [provider.name for provider in asked]
    if list(taken[: len(names)]) != names:
        raise _unavailable(
            f"asked for {', '.join(names)}, but ONNX Runtime fell back to {', '.join(taken)}: "
            "is there a GPU, and do its driver and libraries fit?"
        )


def _unavailable(message: str) -> ModelError:
    return ModelError(FailureReason.PROVIDER_UNAVAILABLE, message)
