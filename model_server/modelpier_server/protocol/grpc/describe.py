"""What is served, as messages: metadata, Triton's configuration, statistics and repository index.

Called by the transport for calls that are no hot path. What the messages say is worked out once, for HTTP as well, by
`model_config`, `statistics` and `model_index`: Triton's JSON is its messages' JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from modelpier_server.contract import ModelReport
from modelpier_server.protocol.grpc.generated import inference_pb2 as pb
from modelpier_server.protocol.model_config import Facts, model_config
from modelpier_server.protocol.statistics import model_statistics
from modelpier_server.telemetry import ModelMetrics

M = TypeVar("M", bound=Message)


def metadata(report: ModelReport, versions: Sequence[str], platform: str) -> pb.ModelMetadataResponse:
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=report.name,
        versions=versions,
        platform=platform,
        inputs=[tensor(name=s.name, datatype=s.datatype, shape=s.shape) for s in report.inputs],
        outputs=[tensor(name=s.name, datatype=s.datatype, shape=s.shape) for s in report.outputs],
    )


def configuration(facts: Facts) -> pb.ModelConfigResponse:
    return _filled(pb.ModelConfigResponse(), {"config": model_config(facts)})


def statistics(models: Iterable[ModelMetrics]) -> pb.ModelStatisticsResponse:
    return _filled(pb.ModelStatisticsResponse(), {"model_stats": [model_statistics(model) for model in models]})


def index(entries: Iterable[Mapping[str, str]]) -> pb.RepositoryIndexResponse:
    return _filled(pb.RepositoryIndexResponse(), {"models": list(entries)})


def _filled(message: M, values: Mapping[str, Any]) -> M:
    ParseDict(values, message)
    return message
