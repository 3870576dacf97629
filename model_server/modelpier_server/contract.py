"""The contract between operator and server: the one module that both import.

The operator renders pods with these ports, paths and environment names, writes serving plans, and reads reports and
termination messages; the server follows. Nothing here imports anything of either side.

A *plan* names the revisions that a pod holds. Its identity is (owner uid, generation): generations only grow, so that
a pod can tell a late plan from a new one whichever way it came (mounted ConfigMap or push). It is signed with the
operator's Ed25519 key (RFC 8032), because a ConfigMap can be edited by people who may not decide what a model server
runs. It names its pod set too: the signed plan of one set, copied into another's ConfigMap, is refused there.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

# ------------------------------------------------------------------------------------------------ ports and paths
HTTP_PORT = 8080
"""Inference, health and metrics over HTTP."""
ADMIN_PORT = 8082
"""Plans and reports; closed to everyone but the operator by the NetworkPolicy."""

LIVE_PATH = "/v2/health/live"
READY_PATH = "/v2/health/ready"
METRICS_PATH = "/metrics"
PLAN_PATH = "/admin/plan"
"""PUT a signed plan (body: the plan's bytes; header SIGNATURE_HEADER): 200 with the report; 409 (with the report)
when an equal or newer one is held; 400 when it is malformed or belongs to another deployment; 403 when the signature
is wrong."""
STATE_PATH = "/admin/state"
"""GET the report; `?after=SERIAL&wait=SECONDS` answers once the report's serial is greater than SERIAL or the time is
over."""
SIGNATURE_HEADER = "X-Modelpier-Plan-Signature"

# ------------------------------------------------------------------------------------------------ environment and files
ENV_PLAN_FILE = "MODELPIER_PLAN_FILE"
ENV_PLAN_PUBLIC_KEY = "MODELPIER_PLAN_PUBLIC_KEY"
"""Raw 32-byte Ed25519 public key, base64."""
ENV_OWNER_UID = "MODELPIER_OWNER_UID"
"""Plans of any other owner are refused."""
ENV_POD_SET = "MODELPIER_POD_SET"
"""Plans for any other pod set are refused; unset: whatever set a plan names is taken."""
ENV_DRAIN_LIMIT = "MODELPIER_DRAIN_LIMIT"
"""Seconds that requests in flight get after DRAIN_ACCEPT_SECONDS: the longest request may take so long. Unset:
DRAIN_LIMIT_SECONDS."""
ENV_MODEL_DIR = "MODELPIER_MODEL_DIR"
ENV_MODEL_STORAGE = "MODELPIER_MODEL_STORAGE"
"""Bytes that MODEL_DIR may hold: a larger model is refused with DISK_FULL before the kubelet would evict the pod."""
ENV_CREDENTIALS_DIR = "MODELPIER_CREDENTIALS_DIR"
ENV_PVC_DIR = "MODELPIER_PVC_DIR"
ENV_TERMINATION_LOG = "MODELPIER_TERMINATION_LOG"

PLAN_DIR = "/etc/modelpier/plan"
PLAN_KEY = "plan.json"
"""Key in the plan's ConfigMap, and so the file's name below PLAN_DIR."""
SIGNATURE_KEY = "plan.sig"
"""Base64 of the Ed25519 signature over the bytes of PLAN_KEY."""
MODEL_DIR = "/var/lib/modelpier/models"
CREDENTIALS_DIR = "/etc/modelpier/credentials"
"""One folder per Secret, one file per key: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
AWS_ENDPOINT_URL (s3);
HTTP_AUTHORIZATION, or HTTP_USERNAME and HTTP_PASSWORD (http, https); HF_TOKEN, HF_ENDPOINT (hf)."""
PVC_DIR = "/mnt/modelpier/pvc"
"""One folder per PersistentVolumeClaim, mounted read-only; `pvc://CLAIM/PATH` is PVC_DIR/CLAIM/PATH."""
TERMINATION_LOG = "/dev/termination-log"
TERMINATION_LOG_LIMIT = 4096
"""Bytes that a kubelet keeps of a termination message."""

EXIT_MODEL_FAILED = 78
"""Exit status (EX_CONFIG of sysexits.h) of a server that could not bring up what its plan requires and serves nothing
else; its termination message is a `Failure`."""

DRAIN_ACCEPT_SECONDS = 5.0
"""After SIGTERM a server goes on accepting for so long: endpoints take time to propagate."""
DRAIN_LIMIT_SECONDS = 30.0
"""Requests in flight get at least so much time after that; more where ENV_DRAIN_LIMIT says so."""

URI_SCHEMES = ("file", "pvc", "http", "https", "s3", "hf")


class Role(StrEnum):
    """What a model means for the readiness of its pod."""

    REQUIRED = "required"
    CANDIDATE = "candidate"


class ModelState(StrEnum):
    """Life of one model in one server, in this order; FAILED can follow any but STOPPED."""

    PENDING = "pending"
    DOWNLOADING = "downloading"
    LOADING = "loading"
    WARMING = "warming"
    LOADED = "loaded"  # warmed up, waits for the plan to pin the digest that it reports
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class FailureReason(StrEnum):
    """Why a model cannot be served: closed set, shown as the reason of the ModelDeployment's conditions."""

    DOWNLOAD_FORBIDDEN = "DownloadForbidden"
    MODEL_NOT_FOUND = "ModelNotFound"
    DOWNLOAD_FAILED = "DownloadFailed"
    DISK_FULL = "DiskFull"
    DIGEST_MISMATCH = "DigestMismatch"
    MODEL_INVALID = "ModelInvalid"
    PROVIDER_UNAVAILABLE = "ProviderUnavailable"
    OUT_OF_MEMORY = "OutOfMemory"
    PLAN_INVALID = "PlanInvalid"


class ContractError(ValueError):
    """A plan, report or message that does not follow the contract; the text names the field."""


# ------------------------------------------------------------------------------------------------ the plan
@dataclass(frozen=True)
class Batching:
    enabled: bool = True
    max_rows: int = 64
    """Rows of the first axis that one run may hold."""


@dataclass(frozen=True)
class Limits:
    max_queue: int = 1024
    """Requests that may wait; one more is answered 429."""
    request_timeout: float = 60.0
    """Seconds from the last byte of the request to the answer."""
    max_body_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True)
class Provider:
    """An ONNX Runtime execution provider and its options."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """How one model is served. `instances` and `threads` 0: derived from the CPU limit."""

    providers: tuple[Provider, ...] = (Provider("CPUExecutionProvider"),)
    instances: int = 0
    threads: int = 0
    batching: Batching = Batching()
    limits: Limits = Limits()


@dataclass(frozen=True)
class PlannedModel:
    """One revision of one model that a pod must hold."""

    name: str
    """The name in URLs."""
    revision: str
    version: str
    uri: str
    digest: str | None = None
    """`sha256:<64 hex>` of the file, or of the sorted listing of a folder; None: nothing is served before it is
    pinned."""
    weight: int = 100
    role: Role = Role.REQUIRED
    credentials: str | None = None
    """Name of the folder below CREDENTIALS_DIR."""
    options: Options = Options()


@dataclass(frozen=True)
class Plan:
    owner_uid: str
    generation: int
    models: tuple[PlannedModel, ...]
    pod_set: str = ""
    """Name of the pod set that it is for; empty: of none, for a server that was started by hand."""

    def encode(self) -> bytes:
        """Canonical JSON: sorted keys, no blanks. Equal plans have equal bytes."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, raw: bytes | str) -> Plan:
        """Raises ContractError naming the field."""
        data = _object(_parse(raw, "plan"), "plan")
        return cls(
            owner_uid=_text(data, "owner_uid", "plan"),
            generation=_whole(data, "generation", "plan", low=1),
            models=tuple(_model(m, f"plan.models[{i}]") for i, m in enumerate(_array(data, "models", "plan"))),
            pod_set="" if data.get("pod_set", "") == "" else _text(data, "pod_set", "plan"),
        )


def sign(plan: bytes, private_key: bytes) -> str:
    """Base64 signature of a plan's bytes by a raw 32-byte Ed25519 private key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - keeps `contract` importable without it

    return base64.b64encode(Ed25519PrivateKey.from_private_bytes(private_key).sign(plan)).decode()


def verify(plan: bytes, signature: str, public_key: str) -> None:
    """Raises ContractError unless `signature` (base64) is the one of `public_key` (base64, raw) over `plan`."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        key.verify(base64.b64decode(signature, validate=True), plan)
    except (InvalidSignature, ValueError) as error:
        raise ContractError("plan signature: not made by this deployment's operator over these bytes") from error


# ------------------------------------------------------------------------------------------------ the report
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
    """Seconds: download, load, warm_up."""
    size_bytes: int = 0
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


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
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def decode(cls, raw: bytes | str) -> Report:
        """Raises ContractError naming the field."""
        data = _object(_parse(raw, "report"), "report")
        return cls(
            serial=_whole(data, "serial", "report"),
            ready=bool(data.get("ready")),
            generation=_whole(data, "generation", "report"),
            plan_error=str(data.get("plan_error", "")),
            models=tuple(_report(m, f"report.models[{i}]") for i, m in enumerate(_array(data, "models", "report"))),
        )


_LONGEST_REVISION = 253
"""Of a Kubernetes name: even escaped it leaves room for a message."""
_LONGEST_ESCAPE = 12
"""Bytes that JSON can make of one character."""


@dataclass(frozen=True)
class Failure:
    """A termination message."""

    reason: FailureReason
    message: str
    revision: str = ""

    def encode(self) -> bytes:
        """At most TERMINATION_LOG_LIMIT bytes: a cut message would not parse."""
        message, revision = self.message[:TERMINATION_LOG_LIMIT], self.revision[:_LONGEST_REVISION]
        while len(raw := self._encode(message, revision)) > TERMINATION_LOG_LIMIT:
            message = message[: -max(1, (len(raw) - TERMINATION_LOG_LIMIT) // _LONGEST_ESCAPE)]
        return raw

    def _encode(self, message: str, revision: str) -> bytes:
        return json.dumps({"reason": self.reason, "message": message, "revision": revision}).encode()

    @classmethod
    def decode(cls, raw: bytes | str) -> Failure:
        """Raises ContractError: not every termination message is ours."""
        data = _object(_parse(raw, "failure"), "failure")
        reason = _member(FailureReason, data, "reason", "failure")
        return cls(reason, str(data.get("message", "")), str(data.get("revision", "")))


# ------------------------------------------------------------------------------------------------ decoding
E = TypeVar("E", bound=StrEnum)


def _parse(raw: bytes | str, where: str) -> Any:
    try:
        return json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{where}: not JSON: {error}") from error


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ContractError(f"{where}: must be an object")
    return value


def _array(data: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = data.get(key)
    if not isinstance(value, list):
        raise ContractError(f"{where}.{key}: must be an array")
    return value


def _text(data: Mapping[str, Any], key: str, where: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise ContractError(f"{where}.{key}: must be a non-empty string")
    return value


def _optional_text(data: Mapping[str, Any], key: str, where: str) -> str | None:
    return None if data.get(key) is None else _text(data, key, where)


def _whole(data: Mapping[str, Any], key: str, where: str, *, low: int = 0, default: int | None = None) -> int:
    value = data.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ContractError(f"{where}.{key}: must be a whole number >= {low}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST_NUMBER:
        raise ContractError(f"{where}: must be a number")
    return float(value)


_LARGEST_NUMBER = 1e300
"""Larger whole numbers do not become floats."""


def _flag(data: Mapping[str, Any], key: str, where: str, *, default: bool) -> bool:
    value = data.get(key, default)
    if not isinstance(value, bool):
        raise ContractError(f"{where}.{key}: must be true or false")
    return value


def _digest(data: Mapping[str, Any], where: str) -> str | None:
    value = _optional_text(data, "digest", where)
    if value is not None and not _DIGEST.fullmatch(value):
        raise ContractError(f"{where}.digest: must be sha256: and 64 hexadecimal digits in lower case")
    return value


_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def _member(enum: type[E], data: Mapping[str, Any], key: str, where: str) -> E:
    try:
        return enum(str(data.get(key)))
    except ValueError as error:
        raise ContractError(f"{where}.{key}: must be one of {', '.join(enum)}") from error


def _model(value: Any, where: str) -> PlannedModel:
    data = _object(value, where)
    return PlannedModel(
        name=_text(data, "name", where),
        revision=_text(data, "revision", where),
        version=_text(data, "version", where),
        uri=_text(data, "uri", where),
        digest=_digest(data, where),
        weight=_whole(data, "weight", where, default=100),
        role=_member(Role, data, "role", where),
        credentials=_optional_text(data, "credentials", where),
        options=_options(data.get("options") or {}, f"{where}.options"),
    )


def _options(value: Any, where: str) -> Options:
    data, default = _object(value, where), Options()
    batching = _object(data.get("batching") or {}, f"{where}.batching")
    limits = _object(data.get("limits") or {}, f"{where}.limits")
    timeout = _number(limits.get("request_timeout", default.limits.request_timeout), f"{where}.limits.request_timeout")
    if timeout <= 0:
        raise ContractError(f"{where}.limits.request_timeout: must be a number of seconds > 0")
    return Options(
        providers=tuple(_provider(p, f"{where}.providers[{i}]") for i, p in enumerate(_array(data, "providers", where)))
        if data.get("providers")
        else default.providers,
        instances=_whole(data, "instances", where, default=0),
        threads=_whole(data, "threads", where, default=0),
        batching=Batching(
            enabled=_flag(batching, "enabled", f"{where}.batching", default=True),
            max_rows=_whole(batching, "max_rows", f"{where}.batching", low=1, default=default.batching.max_rows),
        ),
        limits=Limits(
            max_queue=_whole(limits, "max_queue", f"{where}.limits", low=1, default=default.limits.max_queue),
            request_timeout=timeout,
            max_body_bytes=_whole(
                limits, "max_body_bytes", f"{where}.limits", low=1, default=default.limits.max_body_bytes
            ),
        ),
    )


def _provider(value: Any, where: str) -> Provider:
    data = _object(value, where)
    options = _object(data.get("options") or {}, f"{where}.options")
    return Provider(_text(data, "name", where), {str(k): str(v) for k, v in options.items()})


def _report(value: Any, where: str) -> ModelReport:
    data = _object(value, where)
    return ModelReport(
        name=_text(data, "name", where),
        revision=_text(data, "revision", where),
        version=_text(data, "version", where),
        state=_member(ModelState, data, "state", where),
        digest=_optional_text(data, "digest", where),
        provider=_optional_text(data, "provider", where),
        reason=None if data.get("reason") is None else _member(FailureReason, data, "reason", where),
        message=str(data.get("message", "")),
        timings={
            str(k): _number(v, f"{where}.timings")
            for k, v in _object(data.get("timings") or {}, f"{where}.timings").items()
        },
        size_bytes=_whole(data, "size_bytes", where, default=0),
        inputs=_tensors(data, "inputs", where),
        outputs=_tensors(data, "outputs", where),
    )


def _tensors(data: Mapping[str, Any], key: str, where: str) -> tuple[TensorSpec, ...]:
    found = _array(data, key, where) if data.get(key) else []
    return tuple(_tensor(value, f"{where}.{key}[{i}]") for i, value in enumerate(found))


def _tensor(value: Any, where: str) -> TensorSpec:
    data = _object(value, where)
    shape = _array(data, "shape", where)
    if any(isinstance(size, bool) or not isinstance(size, int) for size in shape):
        raise ContractError(f"{where}.shape: must be an array of whole numbers")
    return TensorSpec(_text(data, "name", where), _text(data, "datatype", where), tuple(shape))
