"""The closed sets: what a model is to its pod, where it is in its life, why it cannot be served."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a model means to its pod: readiness depends on what is required alone."""

    REQUIRED = "required"
    CANDIDATE = "candidate"
    SHADOW = "shadow"  # answers nobody: repeats requests that others of its name have answered, to be compared


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
    MODEL_CRASHED = "ModelCrashed"
    GOLDEN_TEST_FAILED = "GoldenTestFailed"
    PROVIDER_UNAVAILABLE = "ProviderUnavailable"
    OUT_OF_MEMORY = "OutOfMemory"
    PLAN_INVALID = "PlanInvalid"
