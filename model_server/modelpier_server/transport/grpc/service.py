"""`inference.GRPCInferenceService`, but for its hot path: health, metadata, and Triton's extensions.

Sources: Open Inference Protocol `inference_grpc.md`; Triton's `grpc_service.proto`.
"""

from __future__ import annotations

from modelpier_server.errors import NotFound, Unavailable
from modelpier_server.protocol.grpc import describe
from modelpier_server.protocol.grpc.generated import inference_pb2 as pb
from modelpier_server.protocol.grpc.messages import dump, parse
from modelpier_server.telemetry import Metrics
from modelpier_server.transport.grpc.edge import Context, Unary
from modelpier_server.transport.models import Models
from modelpier_server.transport.oip import PLATFORM, SERVER_NAME, server_version
from modelpier_server.transport.repository import Access, check_overrides
from modelpier_server.transport.security.scopes import Scope
from modelpier_server.transport.triton import facts_of

SERVICE = "inference.GRPCInferenceService"
SCOPES: dict[str, Scope | None] = {
    "ServerLive": None,
    "ServerReady": None,
    "RepositoryIndex": Scope.ADMIN,
    "RepositoryModelLoad": Scope.ADMIN,
    "RepositoryModelUnload": Scope.ADMIN,
}
"""What a key must be good for; None: nobody needs one. All others: `infer`."""
EXTENSIONS = ("model_configuration", "model_repository", "statistics")


class Service:
    """Unary methods by name: `methods`."""

    def __init__(self, models: Models, metrics: Metrics, access: Access) -> None:
        self._models = models
        self._access = access
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
            "RepositoryModelLoad": self.load,
            "RepositoryModelUnload": self.unload,
        }

    # ------------------------------------------------------------------------------------------ health
    async def live(self, _: bytes, __: Context) -> bytes:
        return dump(pb.ServerLiveResponse(live=self._models.catalog.live))

    async def ready(self, _: bytes, __: Context) -> bytes:
        catalog = self._models.catalog
        ready = catalog.ready and not catalog.draining
        return dump(pb.ServerReadyResponse(ready=ready))

    async def model_ready(self, raw: bytes, _: Context) -> bytes:
        """False for a model that is unknown, too, as in Triton: clients ask until a model is there."""
        asked = parse(pb.ModelReadyRequest, raw)
        try:
            self._models.ready(asked.name, asked.version or None)
        except (NotFound, Unavailable):
            return dump(pb.ModelReadyResponse(ready=False))
        return dump(pb.ModelReadyResponse(ready=True))

    # ------------------------------------------------------------------------------------------ metadata
    async def server_metadata(self, _: bytes, __: Context) -> bytes:
        answer = pb.ServerMetadataResponse(name=SERVER_NAME, version=self._version, extensions=EXTENSIONS)
        return dump(answer)

    async def model_metadata(self, raw: bytes, _: Context) -> bytes:
        asked = parse(pb.ModelMetadataRequest, raw)
        report = self._models.ready(asked.name, asked.version or None)
        return dump(describe.metadata(report, self._models.versions(asked.name), PLATFORM))

    async def model_config(self, raw: bytes, _: Context) -> bytes:
        asked = parse(pb.ModelConfigRequest, raw)
        served = self._models.serving(asked.name, asked.version or None)[-1]
        return dump(describe.configuration(facts_of(served, self._models.versions(served.name))))

    async def model_statistics(self, raw: bytes, _: Context) -> bytes:
        """Of all models where none is named."""
        asked = parse(pb.ModelStatisticsRequest, raw)
        served = self._models.serving(asked.name or None, asked.version or None)
        found = (self._metrics.find(*key) for key in dict.fromkeys((s.name, s.version) for s in served))
        return dump(describe.statistics(filter(None, found)))

    # ------------------------------------------------------------------------------------------ repository
    async def repository_index(self, raw: bytes, _: Context) -> bytes:
        asked = parse(pb.RepositoryIndexRequest, raw)
        return dump(describe.index(self._access.entries(self._models, only_ready=asked.ready)))

    async def load(self, raw: bytes, _: Context) -> bytes:
        control = self._access.allowed()
        asked = parse(pb.RepositoryModelLoadRequest, raw)
        check_overrides(asked.parameters)
        await control.load(asked.model_name)
        return dump(pb.RepositoryModelLoadResponse())

    async def unload(self, raw: bytes, _: Context) -> bytes:
        control = self._access.allowed()
        await control.unload(parse(pb.RepositoryModelUnloadRequest, raw).model_name)
        return dump(pb.RepositoryModelUnloadResponse())
