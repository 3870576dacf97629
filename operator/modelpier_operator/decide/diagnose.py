"""Why a pod does not serve: an ordered list of pure judges, from what nothing can follow to what passes by itself.

Every judge sees one pod and answers with a reason and a message, or with nothing. The first answer is the truth about
the pod; `worst` picks the one that people should read. Names of states and messages are Kubernetes' own, see
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/ and pkg/kubelet/images/types.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelpier_operator.api.conditions import Reason
from modelpier_operator.decide import plan
from modelpier_operator.decide.facts import Manifest, Problem
from modelpier_operator.decide.podset import Pod
from modelpier_server import contract
from modelpier_server.contract import ModelState

MESSAGE_LIMIT = 1024
"""Characters; the API server takes 32,768, people do not."""
_GPU = re.compile(r"Insufficient (\S*(?:gpu|mig-|tpu|accelerator)\S*)", re.IGNORECASE)
_ROOM = re.compile(r"Insufficient (\S+)|Too many pods|max volume count|free ports")
"""https://github.com/kubernetes/kubernetes/tree/master/pkg/scheduler/framework/plugins: noderesources/fit.go,
nodeports, nodevolumelimits."""
_CLAIM = re.compile(r"persistentvolumeclaim|PersistentVolumeClaims|volume", re.IGNORECASE)
_SECRET = re.compile(r"secrets? \"[^\"]*\" (?:not found|is forbidden)|references non-existent secret|key .* in Secret")
_CONFIG_MAP = re.compile(r"configmaps? \"[^\"]*\" not found|references non-existent config key|key .* in ConfigMap")
_MOUNTING = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
_VOLUMES = re.compile(r"unmounted volumes=\[([^\]]*)\]|for volume \"([^\"]*)\"")
_OF_VOLUME = {
    "credentials": Reason.SECRET_MISSING,
    "ca": Reason.CONFIG_MAP_MISSING,
    "claim": Reason.VOLUME_MISSING,
}
"""By the names that desired.volumes gives them."""
_IMAGE = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_PULL = re.compile(
    r"^(?:Back-off pulling|Failed to pull) image \"[^\"]*\""
    r"(?:: (?:(?:ErrImagePull|RegistryUnavailable|SignatureValidationFailed): )?|$)"
)
"""What a kubelet puts before the cause: another thing while it waits, while it tries and in its Events."""
_OWN_ADDRESS = re.compile(r"\b(read|write) (tcp|udp) \S+->")
"""Its port is another one with every try."""
_CANNOT_START = frozenset({"CreateContainerError", "RunContainerError", "StartError"})


@dataclass(frozen=True)
class Finding:
    reason: Reason
    message: str = ""


Judge = Callable[[Pod, str], Finding | None]


def pod(subject: Pod, revision: str) -> Finding:
    """The truth about one pod that should serve `revision`."""
    answers = (judge(subject, revision) for judge in JUDGES)
    found = next(answer for answer in answers if answer)
    return Finding(found.reason, found.message[:MESSAGE_LIMIT])


def turned_down(subject: Pod, revision: str) -> Finding | None:
    """Why the server will not have a candidate; it tries each of them once."""
    return _model_failed(subject, revision) or _plan_refused(subject, revision)


def candidate(subject: Pod, stable: str, revision: str) -> Finding:
    """The truth about one pod that should hold `revision` beside `stable`, which it serves."""
    told = turned_down(subject, revision)
    model = plan.model_report(subject, revision)
    alone = plan.failed(subject, stable)  # what fails now is healed by what comes
    if told is None and not (subject.ready or alone):
        return pod(subject, stable)
    if told is None and model and model.state is ModelState.READY and subject.running:
        return Finding(Reason.SERVING)
    found = told or _on_the_way(subject, revision) or Finding(Reason.STARTING)
    return Finding(found.reason, found.message[:MESSAGE_LIMIT])


def worst(pods: Iterable[Pod], revision: str, *, beside: str = "") -> Finding:
    """Of all pods that should serve: failures before delays; among equals the oldest pod speaks.

    A pod that ended speaks until a younger one serves. `beside`: the revision that they serve, where `revision` is a
    candidate.
    """
    everyone = tuple(pods)
    proved = max((p.created for p in everyone if p.ready), default="")
    there = (p for p in everyone if not (p.terminating or (p.ended and p.created <= proved)))
    truths = ((candidate(p, beside, revision) if beside else pod(p, revision), p.name) for p in there)
    findings = [found for found in truths if found[0].reason is not Reason.SERVING]
    if not findings:
        return Finding(Reason.CREATING, "No pod exists yet.")
    finding, name = min(findings, key=lambda f: (not f[0].reason.permanent, not f[0].reason.failure))
    return Finding(finding.reason, f"{name}: {finding.message}" if finding.message else finding.reason.cause)


def workload(deployment: Manifest | None, replica_sets: Iterable[Manifest]) -> Finding | None:
    """Why no pod comes into being: said of the Deployment or its ReplicaSets, because there is no pod to say it of."""
    for owner in (deployment, *replica_sets):
        if failure := _replica_failure(owner):
            return refusal(str(failure.get("message") or ""))
    return None


def waits_for_quota_since(deployment: Manifest | None) -> str | None:
    """Since when a ResourceQuota refuses its pods."""
    failure = _replica_failure(deployment)
    if not failure or refusal(str(failure.get("message") or "")).reason is not Reason.QUOTA_EXCEEDED:
        return None
    return failure.get("lastTransitionTime")


def _replica_failure(owner: Manifest | None) -> Mapping[str, Any] | None:
    conditions = ((owner or {}).get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == "ReplicaFailure" and c.get("status") == "True"), None)


def refusal(message: str) -> Finding:
    """What the API server answered to the creation of a pod."""
    if "exceeded quota" in message or "failed quota" in message:
        return Finding(Reason.QUOTA_EXCEEDED, message)
    if re.search(r"serviceaccount \"[^\"]*\" not found|error looking up service account", message):
        return Finding(Reason.SERVICE_ACCOUNT_MISSING, message)
    return Finding(Reason.POD_REJECTED, message)


def problem(problems: Iterable[Problem]) -> Finding | None:
    """Why an object of ours could not be written."""
    for subject in problems:
        where = f"{subject.ref.kind} {subject.ref.name}: {subject.message}"
        try:
            return Finding(Reason(subject.reason), where[:MESSAGE_LIMIT])
        except ValueError:
            return Finding(_PROBLEMS.get(subject.reason, Reason.OBJECT_REJECTED), where[:MESSAGE_LIMIT])
    return None


_PROBLEMS = {"Forbidden": Reason.OPERATOR_FORBIDDEN, "Invalid": Reason.OBJECT_REJECTED}


def waits_for_room_since(subject: Pod) -> str | None:
    """Since when the scheduler finds no room for it: what other pods hold, and would leave behind. A selector that no
    node has, a taint or a missing volume is nothing that old pods could make way for.
    """
    if not _scheduler(subject, "") or not lacks(subject):
        return None
    return subject.condition("PodScheduled").get("lastTransitionTime") or subject.created


def lacks(subject: Pod) -> tuple[str, ...]:
    """What the scheduler finds too little of: resources as it names them, such as `cpu` or `nvidia.com/gpu`."""
    message = str(subject.condition("PodScheduled").get("message") or "")
    named = (match.group(1) or match.group(0) for match in _ROOM.finditer(message))
    return tuple(name.rstrip(".,") for name in named)


# ------------------------------------------------------------------------------------------------ the judges, in order
def _serving(subject: Pod, _: str) -> Finding | None:
    return Finding(Reason.SERVING) if subject.ready else None


def _ended(subject: Pod, revision: str) -> Finding | None:
    if not subject.ended:
        return None
    message = str(subject.status.get("message") or subject.status.get("reason") or "")
    if re.search(r"ephemeral|emptydir", message, re.IGNORECASE):
        return Finding(Reason.DISK_FULL, message)
    return _terminated(subject, revision) or Finding(Reason.EVICTED, message)


def _lost(subject: Pod, _: str) -> Finding | None:
    ready = subject.condition("Ready")
    if ready.get("status") == "Unknown" or subject.status.get("reason") == "NodeLost":
        return Finding(Reason.NODE_LOST, str(ready.get("message") or f"Node {subject.node} does not answer."))
    return None


def _scheduler(subject: Pod, _: str) -> Finding | None:
    scheduled = subject.condition("PodScheduled")
    if subject.node or scheduled.get("status") != "False":
        return None
    message = str(scheduled.get("message") or "")
    if scheduled.get("reason") == "SchedulingGated":
        return Finding(Reason.SCHEDULING, message)
    if _GPU.search(message) or _asks_for_missing(subject, message):
        return Finding(Reason.INSUFFICIENT_GPU, message)
    if _CLAIM.search(message):
        return Finding(Reason.VOLUME_MISSING, message)
    return Finding(Reason.UNSCHEDULABLE, message)


def _asks_for_missing(subject: Pod, message: str) -> bool:
    """A GPU resource whose name says nothing of a GPU."""
    for container in (subject.manifest.get("spec") or {}).get("containers") or ():
        limits = (container.get("resources") or {}).get("limits") or {}
        if any("/" in name and f"Insufficient {name}" in message for name in limits):
            return True
    return False


def _image(subject: Pod, _: str) -> Finding | None:
    waiting = _waiting(subject)
    if waiting.get("reason") == "InvalidImageName":
        return Finding(Reason.IMAGE_INVALID, str(waiting.get("message") or ""))
    if waiting.get("reason") in _IMAGE:
        return Finding(Reason.IMAGE_PULL_FAILED, _pull_error(subject, waiting))
    return None


def _pull_error(subject: Pod, waiting: Mapping[str, Any]) -> str:
    """The cause, in one text for as long as it is the same: a kubelet tries and waits in turns for ever, and each other
    text would be another write of the status. Kubelets before 1.32 tell it in an Event alone while they wait.
    """
    message = str(waiting.get("message") or waiting["reason"])
    told = (c.message for c in subject.complaints if c.message.startswith("Failed to pull image"))
    causes = (_PULL.sub("", text, count=1) for text in (message, *told))
    return _OWN_ADDRESS.sub(r"\1 \2 ", next(filter(None, causes), message))


def _configuration(subject: Pod, _: str) -> Finding | None:
    waiting = _waiting(subject)
    if waiting.get("reason") != "CreateContainerConfigError":
        return None
    message = str(waiting.get("message") or "")
    return _missing(message) or Finding(Reason.POD_REJECTED, message)


def _complaints(subject: Pod, _: str) -> Finding | None:
    """Volumes that cannot be mounted: the kubelet says so in Events alone."""
    if not subject.node or (subject.container().get("state") or {}).get("running"):
        return None
    told = (_unmounted(c.message) for c in subject.complaints if c.reason in _MOUNTING)
    return next((finding for finding in told if finding), None)


def _plan_refused(subject: Pod, _: str) -> Finding | None:
    if subject.report and subject.report.plan_error:
        return Finding(Reason.PLAN_INVALID, subject.report.plan_error)
    return None


def _model_failed(subject: Pod, revision: str) -> Finding | None:
    model = plan.model_report(subject, revision)
    if model is None or model.state is not ModelState.FAILED or not model.reason:
        return None
    return Finding(Reason(model.reason.value), model.message)


def _terminated(subject: Pod, _: str) -> Finding | None:
    """The last end of the container stays the truth until the pod is ready: its next try changes nothing yet."""
    status = subject.container()
    ended = (status.get("state") or {}).get("terminated") or (status.get("lastState") or {}).get("terminated")
    if not ended:
        return None
    if ended.get("reason") == "OOMKilled":
        return Finding(Reason.OUT_OF_MEMORY, "The kernel killed the container: it used more than resources.memory.")
    if ended.get("reason") in _CANNOT_START:
        return Finding(Reason.CRASH_LOOP, str(ended.get("message") or ended["reason"]))
    if not ended.get("exitCode"):
        return None
    return _own_words(ended) or Finding(Reason.CRASH_LOOP, _last_words(ended))


def _crash_loop(subject: Pod, _: str) -> Finding | None:
    waiting = _waiting(subject)
    if waiting.get("reason") in _CANNOT_START | {"CrashLoopBackOff"}:
        return Finding(Reason.CRASH_LOOP, str(waiting.get("message") or waiting["reason"]))
    return None


def _unreachable(subject: Pod, _: str) -> Finding | None:
    if subject.unreachable and subject.running:
        return Finding(Reason.POD_UNREACHABLE, subject.unreachable)
    return None


def _on_the_way(subject: Pod, revision: str) -> Finding | None:
    if not subject.node:
        return Finding(Reason.SCHEDULING, "Waits for the scheduler.")
    if not (subject.container().get("state") or {}).get("running"):
        return Finding(Reason.PULLING_IMAGE, f"Node {subject.node} sets the container up.")
    model = plan.model_report(subject, revision)
    return Finding(_STAGES[model.state] if model else Reason.STARTING)


_STAGES: Mapping[ModelState, Reason] = {
    ModelState.PENDING: Reason.STARTING,
    ModelState.DOWNLOADING: Reason.DOWNLOADING,
    ModelState.LOADING: Reason.LOADING,
    ModelState.WARMING: Reason.WARMING_UP,
    ModelState.LOADED: Reason.PINNING_DIGEST,
    ModelState.READY: Reason.WARMING_UP,
    ModelState.DRAINING: Reason.RESTARTING,
    ModelState.STOPPED: Reason.RESTARTING,
    ModelState.FAILED: Reason.RESTARTING,
}

JUDGES: tuple[Judge, ...] = (
    _serving,
    _ended,
    _lost,
    _scheduler,
    _image,
    _configuration,
    _complaints,
    _model_failed,
    _plan_refused,
    _terminated,
    _crash_loop,
    _unreachable,
    _on_the_way,
)


# ------------------------------------------------------------------------------------------------ reading
def _waiting(subject: Pod) -> Mapping[str, Any]:
    waiting: Mapping[str, Any] = (subject.container().get("state") or {}).get("waiting") or {}
    return waiting


def _unmounted(message: str) -> Finding | None:
    """By what is missing, or by the volume that the kubelet waits for; the plan's ConfigMap is ours and on its way."""
    if found := _missing(message):
        return found
    waits_for = {name for names in _VOLUMES.findall(message) for name in re.split(r"[\s,]+", "".join(names))}
    for volume, reason in _OF_VOLUME.items():
        if volume in waits_for:
            return Finding(reason, message)
    return None if "plan" in waits_for else Finding(Reason.VOLUME_MISSING, message)


def _missing(message: str) -> Finding | None:
    if _SECRET.search(message):
        return Finding(Reason.SECRET_MISSING, message)
    if _CONFIG_MAP.search(message):
        return Finding(Reason.CONFIG_MAP_MISSING, message)
    return None


def _own_words(ended: Mapping[str, Any]) -> Finding | None:
    """The server's own account of its end, if it left one."""
    try:
        failure = contract.Failure.decode(str(ended.get("message") or ""))
    except contract.ContractError:
        return None
    return Finding(Reason(failure.reason.value), failure.message)


def _last_words(ended: Mapping[str, Any]) -> str:
    message = str(ended.get("message") or "").strip()
    status = f"signal {ended['signal']}" if ended.get("signal") else f"exit status {ended['exitCode']}"
    return f"The container ended with {status}{': ' + message if message else '.'}"
