"""What is served, as messages: metadata, Triton's configuration, statistics and repository index.

Called by the transport for calls that are no hot path. Sources: Open Inference Protocol `inference_grpc.md`; Triton's
`extension_model_configuration.md`, `extension_statistics.md`, `extension_model_repository.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelpier_server.contract import ModelReport, ModelState, TensorSpec
from modelpier_server.protocol.grpc.generated import inference_pb2 as pb
from modelpier_server.telemetry import ModelMetrics

CPU_PROVIDER = "CPUExecutionProvider"
STATES = {
    ModelState.READY: "READY",
    ModelState.DRAINING: "UNLOADING",
    ModelState.STOPPED: "UNAVAILABLE",
    ModelState.FAILED: "UNAVAILABLE",
}
"""Of Triton; all others are LOADING."""


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


def metadata(report: ModelReport, versions: Sequence[str], platform: str) -> pb.ModelMetadataResponse:
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=report.name,
        versions=versions,
        platform=platform,
        inputs=[tensor(name=s.name, datatype=s.datatype, shape=s.shape) for s in report.inputs],
        outputs=[tensor(name=s.name, datatype=s.datatype, shape=s.shape) for s in report.outputs],
    )


def configuration(facts: Facts) -> pb.ModelConfig:
    """As in Triton, `max_batch_size` > 0 says that `dims` leave out the first axis and that requests share runs."""
    skip = 1 if facts.max_rows else 0
    kind = pb.ModelInstanceGroup.KIND_CPU if facts.provider == CPU_PROVIDER else pb.ModelInstanceGroup.KIND_GPU
    config = pb.ModelConfig(
        name=facts.name,
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        version_policy=_versions(facts.versions),
        max_batch_size=facts.max_rows,
        input=[pb.ModelInput(name=s.name, data_type=_type(s), dims=s.shape[skip:]) for s in facts.inputs],
        output=[pb.ModelOutput(name=s.name, data_type=_type(s), dims=s.shape[skip:]) for s in facts.outputs],
        instance_group=[pb.ModelInstanceGroup(name=facts.name, kind=kind, count=max(1, facts.instances))],
        default_model_filename="model.onnx",
    )
    config.parameters["batching"].string_value = facts.batching
    if facts.max_rows:
        config.dynamic_batching.SetInParent()
    return config


def _versions(versions: Sequence[str]) -> pb.ModelVersionPolicy:
    """Triton's are numbers; here any label may be one."""
    if all(version.isdecimal() for version in versions):
        specific = pb.ModelVersionPolicy.Specific(versions=[int(version) for version in versions])
        return pb.ModelVersionPolicy(specific=specific)
    return pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=len(versions)))


def _type(spec: TensorSpec) -> pb.DataType:
    name = "STRING" if spec.datatype == "BYTES" else spec.datatype
    number: pb.DataType = pb.DataType.Value(f"TYPE_{name}")
    return number


def statistics(models: Iterable[ModelMetrics]) -> pb.ModelStatisticsResponse:
    return pb.ModelStatisticsResponse(model_stats=[_statistics(model) for model in models])


def _statistics(metrics: ModelMetrics) -> pb.ModelStatistics:
    """Counts of durations are those of successful requests, as in Triton's core; there is no response cache."""
    success = metrics.success
    return pb.ModelStatistics(
        name=metrics.name,
        version=metrics.version,
        inference_count=metrics.rows,
        execution_count=metrics.executions,
        inference_stats=pb.InferStatistics(
            success=_duration(success, metrics.request_ns),
            fail=_duration(sum(metrics.failures.values()), 0),
            queue=_duration(success, metrics.queue_ns),
            compute_input=_duration(success, metrics.compute_input_ns),
            compute_infer=_duration(success, metrics.compute_infer_ns),
            compute_output=_duration(success, metrics.compute_output_ns),
            cache_hit=_duration(0, 0),
            cache_miss=_duration(0, 0),
        ),
    )


def _duration(count: int, nanoseconds: float) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=int(nanoseconds))


def index(reports: Iterable[ModelReport], *, only_ready: bool) -> pb.RepositoryIndexResponse:
    """The reason alone, of the closed set: its text may name where models come from."""
    entry = pb.RepositoryIndexResponse.ModelIndex
    entries = [
        entry(
            name=report.name,
            version=report.version,
            state=STATES.get(report.state, "LOADING"),
            reason=report.reason.value if report.reason is not None else "",
        )
        for report in reports
        if report.state is ModelState.READY or not only_ready
    ]
    return pb.RepositoryIndexResponse(models=entries)
