"""The ModelDeployment, v1alpha1: what users write, as types.

The CRD, its validation and the reference page are generated from here (`make generate`). A field exists only once it
works. Python names are snake_case, the wire is camelCase.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$", max_length=32)]
"""A Kubernetes quantity, such as 500m, 2 or 4Gi."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
"""The name of an object in the same namespace."""
Seconds = Annotated[int, Field(ge=1, le=86400)]


class Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Format(StrEnum):
    AUTO = "auto"
    ONNX = "onnx"


class Model(Section):
    """What is served."""

    uri: Annotated[str, Field(min_length=1, max_length=2048)]
    """Where the model is: s3://bucket/key, https://host/path, hf://org/repo/path, pvc://claim/path or file:///path in
    the image. A trailing slash means a folder with one .onnx file and its external data."""
    version: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")] = None
    """A label for people and for URLs (/v2/models/NAME/versions/VERSION).
    Default: the first 8 digits of the digest or revision."""
    format: Format = Format.AUTO
    digest: Annotated[str | None, Field(pattern=r"^sha256:[0-9a-f]{64}$")] = None
    """Content that is served and no other. Default: what the first pod loads is pinned for all."""
    credentials_secret: Name | None = None
    """A Secret in this namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION (s3),
    HTTP_AUTHORIZATION (http, https), HF_TOKEN, HF_ENDPOINT (hf)."""


class ExecutionProvider(Section):
    name: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]+ExecutionProvider$")]
    options: dict[str, str] = Field(default_factory=dict)


class Batching(Section):
    enabled: bool = True
    max_rows: Annotated[int, Field(ge=1, le=65536)] = 64
    """Rows of the first axis that one run may hold."""


class Limits(Section):
    max_queue: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    """Requests that may wait in one pod; one more is answered 429."""
    request_timeout_seconds: Seconds = 60
    max_body_bytes: Annotated[int, Field(ge=1024, le=1 << 31)] = 64 * 1024 * 1024


class RuntimeUpgrade(StrEnum):
    MANUAL = "Manual"
    AUTO = "Auto"


class Server(Section):
    """How it is served."""

    execution_providers: list[ExecutionProvider] = Field(default_factory=list, max_length=8)
    """ONNX Runtime execution providers in order of preference. Default: CUDA with a GPU, else CPU."""
    instances: Annotated[int, Field(ge=0, le=256)] = 0
    """Runs at the same time in one pod. 0: derived from the CPU limit."""
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    """Threads of one run. 0: derived from the CPU limit."""
    batching: Batching = Batching()
    limits: Limits = Limits()
    startup_timeout_seconds: Seconds = 600
    """Time from a container's start to its readiness, download and load included."""
    image: Annotated[str | None, Field(min_length=1, max_length=1024)] = None
    """Another image of the model server. Default: the operator's."""
    image_pull_secrets: list[Name] = Field(default_factory=list, max_length=16)
    service_account_name: Name | None = None
    """An own ServiceAccount, for workload identity. Default: one without any token."""
    runtime_upgrade: RuntimeUpgrade = RuntimeUpgrade.MANUAL
    """Auto: an upgrade of the operator rolls the pods to its server image. Manual: only a new revision does."""


class Toleration(Section):
    key: str | None = None
    operator: Annotated[str | None, Field(pattern="^(Exists|Equal)$")] = None
    value: str | None = None
    effect: Annotated[str | None, Field(pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$")] = None
    toleration_seconds: int | None = None


class Resources(Section):
    """What a pod gets."""

    gpu: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs of each pod."""
    gpu_resource: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", max_length=253)] = "nvidia.com/gpu"
    """The extended resource that is a GPU here: nvidia.com/gpu, nvidia.com/mig-1g.10gb, amd.com/gpu, ..."""
    cpu: Quantity = "1"
    """Request and, unless cpuLimit says otherwise, the number of threads the server plans with."""
    cpu_limit: Quantity | None = None
    memory: Quantity = "2Gi"
    """Request and limit."""
    model_storage: Quantity = "10Gi"
    """Disk for downloaded models (an emptyDir's limit and an ephemeral-storage request)."""
    node_selector: dict[str, str] = Field(default_factory=dict, max_length=64)
    tolerations: list[Toleration] = Field(default_factory=list, max_length=64)
    priority_class_name: Name | None = None
    runtime_class_name: Name | None = None
    pod_template: dict[str, Any] | None = None
    """Merged over the pod template by a strategic merge (containers by name).
    Refused unless the administrator allows it."""


class Strategy(StrEnum):
    AUTO = "Auto"
    SURGE = "Surge"
    REPLACE = "Replace"


class Rollout(Section):
    """How one revision follows another."""

    strategy: Strategy = Strategy.AUTO
    """Surge: new pods beside the old ones. Replace: old pods first, one by one.
    Auto: Surge where the cluster has the GPUs."""
    capacity_wait_seconds: Seconds = 60
    """How long new pods of a Surge may stay unschedulable before Auto turns to Replace."""
    progress_deadline_seconds: Seconds = 900
    """A rollout that makes no progress for so long is given up; the old revision stays."""
    revision_history_limit: Annotated[int, Field(ge=0, le=100)] = 10


class ModelDeploymentSpec(Section):
    model: Model
    server: Server = Server()
    resources: Resources = Resources()
    replicas: Annotated[int, Field(ge=0, le=10000)] = 1
    rollout: Rollout = Rollout()


def parse_spec(spec: dict[str, Any]) -> ModelDeploymentSpec:
    """Raises pydantic.ValidationError; the API server has applied the CRD's rules and defaults before."""
    return ModelDeploymentSpec.model_validate(spec)
