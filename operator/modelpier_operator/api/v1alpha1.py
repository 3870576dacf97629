"""The ModelDeployment, v1alpha1: what users write, as types.

The CRD, its validation and the reference page are generated from here (`make generate`). A field exists only once it
works. Python names are snake_case, the wire is camelCase.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, WithJsonSchema

from modelpier_operator.api import rules
from modelpier_operator.api.access import Access
from modelpier_operator.api.quantity import normalise_quantity
from modelpier_operator.api.section import SNAPSHOT, LabelValue, Name, Section
from modelpier_server import contract

Quantity = Annotated[
    str,
    # Far from the limits of Kubernetes' own type, where it prints some values wrongly.
    Field(pattern=r"^([0-9]{1,15}|[0-9]{1,6}(\.[0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?)$", max_length=16),
    AfterValidator(normalise_quantity),
]
"""A Kubernetes quantity, such as 500m, 2 or 4Gi; in its canonical form once parsed."""
Seconds = Annotated[int, Field(strict=True, ge=1, le=86400)]
Library = Annotated[str, Field(pattern=f"^{contract.LIBRARY_PATTERN}$", max_length=contract.LONGEST_LIBRARY)]


class GoldenTests(Section):
    """Examples in the model's folder (test_data_set_*/input_*.pb and output_*.pb, or tests.json) that must come out
    before a pod is ready.
    """

    enabled: Annotated[bool, Field(strict=True)] = True
    """false: they are not run."""
    relative_tolerance: Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)] = 0.001
    """By this share of what is expected an element may differ, in addition to absoluteTolerance."""
    absolute_tolerance: Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)] = 0.00001
    """By so much an element may differ."""


class Model(Section):
    """What is served."""

    RULES: ClassVar = rules.MODEL

    uri: Annotated[
        str, Field(min_length=1, max_length=2048, pattern=r"^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?$")
    ]
    """Where the model is: s3://bucket/key, https://host/path, hf://org/repo/path, pvc://claim/path or file:///path in
    the image. A trailing slash means a folder with one .onnx file and its external data."""
    version: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")] = None
    """A label for people and for URLs (/v2/models/NAME/versions/VERSION).
    Default: the first 8 digits of the digest or revision."""
    digest: Annotated[str | None, Field(pattern=r"^sha256:[0-9a-f]{64}$")] = None
    """Content that is served and no other. Default: what the first pod loads is pinned for all."""
    credentials_secret: Name | None = None
    """A Secret in this namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
    AWS_ENDPOINT_URL (s3); HTTP_AUTHORIZATION, or HTTP_USERNAME and HTTP_PASSWORD (http, https); HF_TOKEN,
    HF_ENDPOINT (hf). All keys are optional."""
    tests: GoldenTests = GoldenTests()
    """What the examples that the model brings must come to."""


class ExecutionProvider(Section):
    """A backend of ONNX Runtime."""

    name: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]+ExecutionProvider$", max_length=64)]
    """Its name in ONNX Runtime, such as CPUExecutionProvider or CUDAExecutionProvider."""
    options: dict[str, Annotated[str, Field(max_length=1024)]] = Field(default_factory=dict, max_length=64)
    """Its options as strings, such as {"gpu_mem_limit": "2147483648"}."""


class Batching(Section):
    """Requests that wait at the same time run as one batch. Unless maxDelayMicroseconds says so, nothing waits for a
    batch to fill.
    """

    RULES: ClassVar = rules.BATCHING

    enabled: Annotated[bool, Field(strict=True)] = True
    """false: every request is a run of its own."""
    max_rows: Annotated[int, Field(strict=True, ge=1, le=65536)] = 64
    """Rows of the first axis that one run may hold; a request of more is run in pieces."""
    max_delay_microseconds: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 0
    """Time that a request may wait for others to share its run. 0: none, which is right for nearly every model."""
    padding: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict, max_length=16)
    """Inputs [rows, length, ...] and the values that shorter ones are padded with, so that requests of different
    lengths share a run: {"input_ids": 0, "attention_mask": 0}. All inputs with that length must be there."""
    mask: Annotated[str, Field(max_length=253)] = ""
    """The one of `padding` that says which elements count, such as attention_mask. Without a mask in the model there
    is no padding."""


class Limits(Section):
    """What a pod takes on before it refuses."""

    max_queue: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 1024
    """Requests that may wait in one pod; one more is answered 429."""
    max_queue_wait_milliseconds: Annotated[int, Field(strict=True, ge=0, le=86_400_000)] = 0
    """A request that is expected to wait longer is answered 429 at once. 0: one that is expected to wait longer than
    its own time allows."""
    priority_levels: Annotated[int, Field(strict=True, ge=1, le=16)] = 1
    """Levels of the request parameter `priority`: 1 is run first, requests without it are in the middle. With 1 level
    requests are run in the order in which they come."""
    run_timeout_seconds: Annotated[int, Field(strict=True, ge=0, le=86400)] = 0
    """Time that one run of the model may take; then it is ended, and what does not end makes the pod restart. 0:
    requestTimeoutSeconds, or ten times the longest run so far."""
    request_timeout_seconds: Seconds = 60
    """Time from the last byte of a request to its answer; then it is answered 504."""
    max_body_bytes: Annotated[int, Field(strict=True, ge=1024, le=1 << 31)] = 64 * 1024 * 1024
    """Size of a request; a larger one is answered 413."""


class GraphOptimization(StrEnum):
    DISABLED = "Disabled"
    BASIC = "Basic"
    EXTENDED = "Extended"
    ALL = "All"


class RuntimeUpgrade(StrEnum):
    MANUAL = "Manual"
    AUTO = "Auto"


class Server(Section):
    """How it is served."""

    RULES: ClassVar = rules.SERVER

    execution_providers: list[ExecutionProvider] = Field(default_factory=list, max_length=8)
    """ONNX Runtime execution providers in order of preference. Default: CUDA with a GPU, else CPU."""
    instances: Annotated[int, Field(strict=True, ge=0, le=256)] = 0
    """Runs at the same time in one pod. 0: one for each core of resources.cpuLimit, or else of resources.cpu;
    1 with a GPU."""
    threads: Annotated[int, Field(strict=True, ge=0, le=256)] = 0
    """Threads of one run. 0: 1, or with `instances` its share of the cores."""
    isolated: Annotated[bool, Field(strict=True)] = False
    """Whether the model runs in a process of its own within the pod. When that crashes, its callers are told and it is
    loaded again, while the server goes on; each run costs some 0.1 ms more, and about half a
    millisecond per 600 kB in and out."""
    hooks: Annotated[bool, Field(strict=True)] = False
    """Whether hooks.py in the model's folder (model.uri ends in a slash) is run before and after the model: Python
    that does what no graph can, with all rights of the pod. Whoever may write to model.uri may run code then;
    model.digest pins what is run."""
    custom_operators: list[Library] = Field(default_factory=list, max_length=contract.MOST_LIBRARIES)
    """Libraries of operators that the model needs beyond ONNX's own: shared libraries with RegisterCustomOps, by their
    paths within the model's folder (model.uri ends in a slash), as in ops/custom.so. Native code with all rights of the
    pod, which a crash of it takes down unless the model is isolated. Whoever may write to model.uri may run code then;
    model.digest pins what is run."""
    graph_optimization: GraphOptimization = GraphOptimization.ALL
    """How far ONNX Runtime may rewrite the model before it runs. All is the fastest; a lower level helps when a
    rewritten model answers otherwise."""
    batching: Batching = Batching()
    """How requests are put together into runs."""
    limits: Limits = Limits()
    """How much a pod takes on before it refuses."""
    startup_timeout_seconds: Seconds = 600
    """Time from a container's start to its readiness, download and load included."""
    image: Annotated[str | None, Field(min_length=1, max_length=1024)] = None
    """Another image of the model server. Default: the operator's."""
    image_pull_secrets: list[Name] = Field(default_factory=list, max_length=16)
    """Secrets in this namespace with which the image is pulled, besides the administrator's."""
    service_account_name: Name | None = None
    """An own ServiceAccount, for workload identity. Default: one without any token."""
    runtime_upgrade: RuntimeUpgrade = RuntimeUpgrade.MANUAL
    """Auto: an upgrade of the operator rolls the pods to its server image, and to its key for plans.
    Manual: only a new revision does."""


class TolerationOperator(StrEnum):
    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


# The API server drops empty strings from pods: they and absence are one intent.
EmptyAsNone = AfterValidator(lambda text: text or None)


class Toleration(Section):
    """As in a pod: lets it run on nodes with such a taint."""

    RULES: ClassVar = rules.TOLERATION

    key: Annotated[str | None, Field(max_length=317), EmptyAsNone] = None
    """Key of the taint. Absent: every taint (operator Exists)."""
    operator: TolerationOperator | None = None
    """Equal (default): key and value are the taint's. Exists: the key is."""
    value: Annotated[LabelValue | None, EmptyAsNone] = None
    """Value of the taint."""
    effect: TaintEffect | None = None
    """Effect of the taint. Absent: every effect."""
    toleration_seconds: Annotated[int | None, Field(strict=True, ge=0, le=(1 << 31) - 1)] = None
    """How long a pod stays after a NoExecute taint appeared. Absent: for ever."""


class _Metadata(Section):
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class _Template(Section):
    metadata: _Metadata = _Metadata()
    spec: dict[str, Any] = Field(default_factory=dict)


def _like_a_template(value: dict[str, Any]) -> dict[str, Any]:
    _Template.model_validate(value)
    return value


_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
PodTemplate = Annotated[
    dict[str, Any],
    AfterValidator(_like_a_template),
    # The API server keeps whatever stands in spec: pods have more fields than a CRD should repeat.
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                "metadata": {"type": "object", "properties": {"labels": _STRINGS, "annotations": _STRINGS}},
                "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        }
    ),
]
"""Stays as it was written: an empty value, such as an emptyDir, says something there."""


class Resources(Section):
    """What a pod gets."""

    RULES: ClassVar = rules.RESOURCES

    gpu: Annotated[int, Field(strict=True, ge=0, le=64)] = 0
    """GPUs of each pod."""
    gpu_resource: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$", max_length=253
        ),
    ] = "nvidia.com/gpu"
    """The extended resource that is a GPU here: nvidia.com/gpu, nvidia.com/mig-1g.10gb, amd.com/gpu, ..."""
    cpu: Quantity = "1"
    """CPU cores that are kept free for the pod; without cpuLimit also the number of runs at the same time."""
    cpu_limit: Quantity | None = None
    """Limit. Default: none; a pod may use what its node has free."""
    memory: Quantity = "2Gi"
    """Memory that is kept free for the pod, and the most that it may use."""
    model_storage: Quantity = "10Gi"
    """Disk for downloaded models (an emptyDir's limit and an ephemeral-storage request)."""
    node_selector: dict[str, LabelValue] = Field(default_factory=dict, max_length=64)
    """Labels that a node must have."""
    tolerations: list[Toleration] = Field(default_factory=list, max_length=64)
    """Taints of nodes that the pods tolerate."""
    priority_class_name: Name | None = None
    """A PriorityClass: which pods go first when a node is full."""
    runtime_class_name: Name | None = None
    """A RuntimeClass, such as nvidia."""
    pod_template: PodTemplate | None = None
    """The last resort: metadata (labels, annotations) and spec of a pod, merged over the pod template by a strategic
    merge (containers by name; the model server's is called server). Refused unless the administrator allows it."""


class Strategy(StrEnum):
    AUTO = "Auto"
    SURGE = "Surge"
    SWAP = "Swap"
    REPLACE = "Replace"


class Rollout(Section):
    """How one revision follows another."""

    RULES: ClassVar = rules.ROLLOUT

    strategy: Strategy = Strategy.AUTO
    """Surge: new pods beside the old ones. Swap: the same pods load the new revision beside the old one, then turn to
    it. Replace: old pods first, one by one. Auto: Surge where the cluster has the GPUs, else Swap where the pods can
    stay as they are, else Replace."""
    capacity_wait_seconds: Seconds = 60
    """How long new pods of a Surge may stay unschedulable before Auto turns to Swap or Replace."""
    progress_deadline_seconds: Seconds = 900
    """A rollout in which no pod becomes ready for so long is given up; the old revision stays.
    A model that needs longer to start needs a larger one."""
    revision_history_limit: Annotated[int, Field(strict=True, ge=0, le=100)] = 10
    """Revisions that are kept besides the ones that serve or are rolled out."""
    rollback_to: Name | None = None
    """Name of an earlier revision, which is then wanted in place of what model, server and resources say, with the
    same bytes and the same pods. Remove it to go on with those."""


class ModelDeploymentSpec(Section):
    """What is wanted: a model, and how it is served."""

    RULES: ClassVar = rules.SPEC

    model: Model
    """What is served: where it is, and under which version and digest."""
    server: Server = Server()
    """How it is served: execution providers, batching, limits, image."""
    resources: Resources = Resources()
    """What each pod gets: GPUs, CPU, memory, disk, and on which nodes."""
    replicas: Annotated[int, Field(strict=True, ge=0, le=10000)] = 1
    """Number of pods; 0 gives everything back. kubectl scale, a HorizontalPodAutoscaler or KEDA may set it."""
    rollout: Rollout = Rollout()
    """How a new model or setting takes over from the one that serves."""
    access: Access = Access()
    """Who may connect to the pods. A change of it makes no revision and restarts no pod."""


def parse_spec(spec: Mapping[str, Any]) -> ModelDeploymentSpec:
    """Raises pydantic.ValidationError; the API server has applied the CRD's rules and defaults before."""
    return ModelDeploymentSpec.model_validate(spec)


def parse_snapshot(intent: Mapping[str, Any]) -> ModelDeploymentSpec:
    """What `normalise` made of a spec: no `RULES`, for one that came later must not undo a revision.

    Raises pydantic.ValidationError for what is no snapshot.
    """
    return ModelDeploymentSpec.model_validate(intent, context=SNAPSHOT)
