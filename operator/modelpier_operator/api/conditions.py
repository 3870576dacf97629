"""The condition types of a ModelDeployment and the closed set of their reasons.

`status` writes them, `judge` chooses among them, docs/reference/conditions.md is generated from here (`make generate`).
A reason names the root cause, not the symptom: "InsufficientGPU", not "PodPending". Reasons that only a change of the
spec can mend are `permanent`: they make `Stalled` true. kstatus
(https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus) reads Stalled=True as failed, Ready=False as on
the way and Ready=True as current.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

PERMANENT = "only a change of the spec helps"


class ConditionType(StrEnum):
    """In the order in which status lists them; each has its `meaning` when True."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    READY = "Ready", "The newest spec serves at full strength (or is scaled to zero, as asked)."
    AVAILABLE = "Available", "Something serves: at least one pod of some revision takes requests."
    PROGRESSING = "Progressing", "The cluster is on its way to the newest spec."
    DEGRADED = "Degraded", "Something is wrong although it may still serve; reason and message say what."
    STALLED = "Stalled", "Waiting does not help: only a change of the spec does. Nothing is retried before it."
    MODEL_RESOLVED = "ModelResolved", "The digest of the newest revision's model is known and pinned."
    SCHEDULED = "Scheduled", "All pods of the newest revision have a node."
    LOADED = "Loaded", "The newest revision's model is loaded and warmed up in all of its pods."


class Reason(StrEnum):
    """Why a condition is as it is: closed set, CamelCase as the API conventions ask.

    `permanent`: only a change of the spec helps. `failure`: something is wrong. `cause` and `remedy` are for people;
    both stand in the reference page, the remedy also in `kubectl`'s view through the condition's message.
    """

    permanent: bool
    failure: bool
    cause: str
    remedy: str

    def __new__(cls, value: str, cause: str = "", remedy: str = "", permanent: str = "") -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.permanent, member.failure, member.cause, member.remedy = bool(permanent), bool(remedy), cause, remedy
        return member

    # ------------------------------------------------------------------------------------ as it should be
    SERVING = "Serving", "It serves."
    SCALED_TO_ZERO = "ScaledToZero", "replicas is 0, as the spec asks: nothing runs and nothing is wrong."
    HEALTHY = "Healthy", "Nothing is wrong."
    COMPLETE = "Complete", "The newest spec is in place; there is nothing left to do."
    DIGEST_GIVEN = "DigestGiven", "spec.model.digest names the content."
    DIGEST_PINNED = "DigestPinned", "The first load's digest is pinned; every later pod must match it."
    SCHEDULED = "Scheduled", "Every pod has a node."
    LOADED = "Loaded", "Every pod holds the model, warmed up."

    # ------------------------------------------------------------------------------------ on the way
    CREATING = "Creating", "The objects are being made; no pod exists yet."
    SCHEDULING = "Scheduling", "A pod waits for the scheduler."
    PULLING_IMAGE = "PullingImage", "The kubelet pulls the image or sets the container up."
    STARTING = "Starting", "The container runs; the server has not reported yet."
    DOWNLOADING = "Downloading", "The server downloads the model."
    LOADING = "Loading", "ONNX Runtime loads the model."
    WARMING_UP = "WarmingUp", "The server runs the model before it takes requests."
    PINNING_DIGEST = "PinningDigest", "The model is loaded; its digest is being pinned for all pods before any traffic."
    ROLLING_OUT = "RollingOut", "A new revision takes over; the old one serves meanwhile."
    SCALING = "Scaling", "The number of pods follows spec.replicas."
    RESTARTING = "Restarting", "A pod that served is not ready at the moment and starts again."

    # ------------------------------------------------------------------------------------ capacity
    INSUFFICIENT_GPU = (
        "InsufficientGPU",
        "No node that the pod may run on has enough free GPUs of resources.gpuResource.",
        "Free GPUs, add a node, lower resources.gpu, or set rollout.strategy to Swap or Replace (these need no more).",
    )
    UNSCHEDULABLE = (
        "Unschedulable",
        "No node fits for a reason other than GPUs: CPU, memory, node selector, taints or volumes.",
        "See the message for what each node lacks; change resources, nodeSelector or tolerations, or add a node.",
    )
    QUOTA_EXCEEDED = (
        "QuotaExceeded",
        "A ResourceQuota of the namespace forbids the pod or another object.",
        "Raise the quota, or ask for less in spec.resources or spec.replicas.",
    )

    # ------------------------------------------------------------------------------------ pod
    POD_REJECTED = (
        "PodRejected",
        "Admission refuses the pod: Pod Security, a LimitRange, a missing PriorityClass or RuntimeClass, or a webhook.",
        "The message quotes it: change the spec field that it names, or the namespace's policy.",
    )
    SERVICE_ACCOUNT_MISSING = (
        "ServiceAccountMissing",
        "server.serviceAccountName names a ServiceAccount that does not exist in the namespace.",
        "Create the ServiceAccount, or change server.serviceAccountName.",
    )
    SECRET_MISSING = (
        "SecretMissing",
        "A Secret that the spec names does not exist in the namespace (or lacks the key).",
        "Create the Secret, or change model.credentialsSecret.",
    )
    CONFIG_MAP_MISSING = (
        "ConfigMapMissing",
        "A ConfigMap that the pod mounts does not exist in the namespace, such as the administrator's CA bundle.",
        "Create the ConfigMap that the message names.",
    )
    VOLUME_MISSING = (
        "VolumeMissing",
        "A PersistentVolumeClaim of model.uri does not exist, is not bound, or cannot be mounted.",
        "Create or repair the claim, or change model.uri.",
    )
    IMAGE_PULL_FAILED = (
        "ImagePullFailed",
        "The kubelet cannot pull the server's image: it does not exist, the registry refuses or does not answer.",
        "Correct server.image or server.imagePullSecrets, or make the registry reachable from the nodes.",
    )
    IMAGE_INVALID = (
        "ImageInvalid",
        "server.image is not an image reference.",
        "Write it as registry/name:tag or registry/name@sha256:digest.",
        PERMANENT,
    )
    CRASH_LOOP = (
        "CrashLoop",
        "The container ends again and again, and says nothing of its own about why.",
        "Read its log: kubectl logs POD --previous. The message has its exit status and its termination message.",
    )
    OUT_OF_MEMORY = (
        "OutOfMemory",
        "It needs more memory than the container has (the kernel killed it), or the GPU, or is left beside another.",
        "Raise resources.memory, or lower server.instances or server.batching.maxRows, or serve a smaller model.",
        PERMANENT,
    )
    EVICTED = (
        "Evicted",
        "The node ran short of memory, disk or process ids and removed the pod.",
        "Nothing, when it starts elsewhere; else give the node less to do or the pod larger requests.",
    )
    NODE_LOST = (
        "NodeLost",
        "The pod's node does not answer the control plane any more.",
        "Repair or delete the node: Kubernetes moves the pods when its own deadline is over.",
    )
    POD_UNREACHABLE = (
        "PodUnreachable",
        "The pod runs, but the operator cannot reach its admin port.",
        "Let the operator's namespace reach port 8082 of the pods in every NetworkPolicy and mesh policy.",
    )
    PLAN_INVALID = (
        "PlanInvalid",
        "The server refuses the operator's serving plan: an image of another version, or another operator's key.",
        "Use a server image of the operator's version in server.image; see the message.",
    )

    # ------------------------------------------------------------------------------------ model
    DOWNLOAD_FORBIDDEN = (
        "DownloadForbidden",
        "The store refuses access to model.uri (401 or 403).",
        "Correct the keys in model.credentialsSecret, or the rights of that account on the bucket.",
    )
    MODEL_NOT_FOUND = (
        "ModelNotFound",
        "There is nothing at model.uri.",
        "Correct model.uri, or upload the model there.",
    )
    DOWNLOAD_FAILED = (
        "DownloadFailed",
        "The store of model.uri does not answer, or breaks off; the server tries again.",
        "Check host, proxy and CA certificates; AWS_ENDPOINT_URL or HF_ENDPOINT in the Secret for stores of your own.",
    )
    DISK_FULL = (
        "DiskFull",
        "The model does not fit into resources.modelStorage.",
        "Raise resources.modelStorage above the size of the model.",
        PERMANENT,
    )
    DIGEST_MISMATCH = (
        "DigestMismatch",
        "What is at model.uri is not the content of model.digest, or of the digest pinned by the first pod.",
        "Put the right file back, correct model.digest, or give the new content a new model.uri or model.version.",
        PERMANENT,
    )
    MODEL_INVALID = (
        "ModelInvalid",
        "ONNX Runtime cannot load or run the model.",
        "See the message; check the file with onnx.checker, its opset against ONNX Runtime's, and its external data.",
        PERMANENT,
    )
    MODEL_CRASHED = (
        "ModelCrashed",
        "The process that loaded or ran the model ended by itself, again and again.",
        "See how the container ended: SIGKILL means that memory ran out (raise resources.memory), SIGSEGV a defect.",
        PERMANENT,
    )
    GOLDEN_TEST_FAILED = (
        "GoldenTestFailed",
        "An example that the model brings (test_data_set_*, tests.json) does not come out as it says.",
        "See the message for test, output and difference: correct model or example, or set model.tests.",
        PERMANENT,
    )
    PROVIDER_UNAVAILABLE = (
        "ProviderUnavailable",
        "The first of server.executionProviders does not work in the pod: wrong image, no driver, no GPU.",
        "Ask for a GPU (resources.gpu), use the GPU image, or change server.executionProviders.",
        PERMANENT,
    )

    # ------------------------------------------------------------------------------------ spec and objects
    SPEC_INVALID = (
        "SpecInvalid",
        "A field of the spec cannot be used although the API server took it.",
        "The message names the field and what to write.",
        PERMANENT,
    )
    POD_OVERRIDES_FORBIDDEN = (
        "PodOverridesForbidden",
        "resources.podTemplate is set, and the administrator does not allow pod overrides.",
        "Remove resources.podTemplate, or ask the administrator to set allowPodOverrides.",
        PERMANENT,
    )
    NAME_CONFLICT = (
        "NameConflict",
        "An object of a name that is needed exists and belongs to someone else; it is left alone.",
        "Delete or rename that object, or make the ModelDeployment under another name.",
    )
    OPERATOR_FORBIDDEN = (
        "OperatorForbidden",
        "The operator lacks the right to write an object.",
        "Give the operator's ServiceAccount the rights of the chart; see the message for verb and resource.",
    )
    OBJECT_REJECTED = (
        "ObjectRejected",
        "The API server or a webhook refuses an object that the operator makes.",
        "See the message: mostly a policy of the cluster, or a value of the spec that Kubernetes does not take.",
    )
    DEADLINE_EXCEEDED = (
        "DeadlineExceeded",
        "The rollout made no progress for rollout.progressDeadlineSeconds and was given up; no clearer cause is known.",
        "Change the spec to try again, or raise rollout.progressDeadlineSeconds.",
        PERMANENT,
    )
