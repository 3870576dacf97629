"""`inference.GRPCInferenceService`, but for its hot path: health, metadata, and Triton's extensions.

Sources: Open Inference Protocol `inference_grpc.md`; Triton's `grpc_service.proto`.
"""

from __future__ import annotations

from modelpier_server.contract import ModelReport, ModelState
from modelpier_server.errors import Forbidden, Unavailable
from modelpier_server.protocol.grpc import describe
from modelpier_server.protocol.grpc.generated import inference_pb2 as pb
from modelpier_server.protocol.grpc.messages import dump, parse
from modelpier_server.scheduler.servable import Servable
from modelpier_server.telemetry import Metrics
from modelpier_server.transport.catalog import Catalog
from modelpier_server.transport.grpc.edge import Context, Unary
from modelpier_server.transport.oip import PLATFORM, SERVER_NAME, server_version

SERVICE = "inference.GRPCInferenceService"
EXTENSIONS = ("model_configuration", "model_repository", "statistics")


class Service:
    """Unary methods by name: `methods`."""

    def __init__(self, catalog: Catalog, metrics: Metrics) -> None:
        self._catalog = catalog
        self._metrics = metrics
        self._version = server_version()
        self.methods: dict[str, Unary] = {
            "ServerLive": self.live,
            "ServerReady": self.ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "RepositoryIndex": self.repository_index,
            "RepositoryModelLoad": self.repository_control,
            "RepositoryModelUnload": self.repository_control,
        }

    # ------------------------------------------------------------------------------------------ health
    async def live(self, _: bytes, __: Context) -> bytes:
        return dump(pb.ServerLiveResponse(live=self._catalog.live))

    async def ready(self, _: bytes, __: Context) -> bytes:
        ready = self._catalog.ready and not self._catalog.draining
        return dump(pb.ServerReadyResponse(ready=ready))

    async def model_ready(self, raw: bytes, _: Context) -> bytes:
        """False for a model that is unknown, too, as in Triton: clients ask until a model is there."""
        asked = parse(pb.ModelReadyRequest, raw)
        ready = self._found(asked.name, asked.version) is not None
        return dump(pb.ModelReadyResponse(ready=ready))

    # ------------------------------------------------------------------------------------------ metadata
    async def server_metadata(self, _: bytes, __: Context) -> bytes:
        answer = pb.ServerMetadataResponse(name=SERVER_NAME, version=self._version, extensions=EXTENSIONS)
        return dump(answer)

    async def model_metadata(self, raw: bytes, _: Context) -> bytes:
        asked = parse(pb.ModelMetadataRequest, raw)
        report = self._ready(asked.name, asked.version)
        return dump(describe.metadata(report, self._versions(asked.name), PLATFORM))

    async def model_config(self, raw: bytes, _: Context) -> bytes:
        asked = parse(pb.ModelConfigRequest, raw)
        served = self._serving(asked.name, asked.version)[0]
        facts = describe.Facts(
            name=served.name,
            versions=self._versions(served.name),
            inputs=served.session.inputs,
            outputs=served.session.outputs,
            provider=served.session.provider,
            instances=served.session.instances,
            max_rows=served.finding.max_rows,
            batching=served.finding.why,
        )
        return dump(pb.ModelConfigResponse(config=describe.configuration(facts)))

    async def model_statistics(self, raw: bytes, _: Context) -> bytes:
        """Of all models where none is named."""
        asked = parse(pb.ModelStatisticsRequest, raw)
        served = self._serving(asked.name, asked.version)
        found = (self._metrics.find(name, version) for name, version in {(s.name, s.version): None for s in served})
        return dump(describe.statistics(filter(None, found)))

    # ------------------------------------------------------------------------------------------ repository
    async def repository_index(self, raw: bytes, _: Context) -> bytes:
        asked = parse(pb.RepositoryIndexRequest, raw)
        return dump(describe.index(self._catalog.describe(), only_ready=asked.ready))

    async def repository_control(self, _: bytes, __: Context) -> bytes:
        raise Forbidden("loading and unloading: not over gRPC; this server holds what its plan or --model names")

    # ------------------------------------------------------------------------------------------ looking up
    def _found(self, name: str, version: str) -> ModelReport | None:
        """Takes no turn of the weights, as `find` would."""
        for report in self._catalog.describe():
            if report.name == name and report.state is ModelState.READY and version in {"", report.version}:
                return report
        return None

    def _ready(self, name: str, version: str) -> ModelReport:
        """Raises NotFound, or Unavailable for what is not ready yet."""
        report = self._found(name, version)
        if report is not None:
            return report
        self._catalog.find(name, version or None)  # knows whether it is unknown or not ready yet
        raise Unavailable(f"model '{name}' is not ready yet")

    def _serving(self, name: str, version: str) -> list[Servable]:
        """All, where no name is given. Raises as `_ready`."""
        if name:
            self._ready(name, version)
        found = [s for s in self._catalog.serving() if name in {"", s.name} and version in {"", s.version}]
        return sorted(found, key=lambda s: (s.name, s.version))

    def _versions(self, name: str) -> list[str]:
        reports = self._catalog.describe()
        return sorted({r.version for r in reports if r.name == name and r.state is ModelState.READY})
