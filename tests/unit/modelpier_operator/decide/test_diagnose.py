"""Each truth of status, told from what Kubernetes and the server really say. Messages are quoted from real clusters."""

from __future__ import annotations

from typing import Any

import pytest

from modelpier_operator.api.conditions import Reason
from modelpier_operator.decide import diagnose, podset
from modelpier_operator.decide.facts import Complaint, Problem, Ref
from modelpier_server.contract import Failure, FailureReason, Report
from support.builders import GPU, pod, report, stamp

R = "m-rev"


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def ended(code: int = 1, **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Error", **more}}


def back_off(**last: Any) -> dict[str, Any]:
    return {**waiting("CrashLoopBackOff", "back-off 10s restarting failed container"), "last": ended(**last)}


def own_words(reason: FailureReason, message: str = "told by the server") -> str:
    return Failure(reason, message).encode().decode()


CASES: dict[str, tuple[dict[str, Any], Reason, str]] = {
    "no gpu": (
        {"unscheduled": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: not helpful"},
        Reason.INSUFFICIENT_GPU,
        "Insufficient nvidia.com/gpu",
    ),
    "no gpu among other lacks": (
        {"unscheduled": "0/2 nodes are available: 1 Insufficient cpu, 2 Insufficient nvidia.com/mig-1g.10gb."},
        Reason.INSUFFICIENT_GPU,
        "mig-1g.10gb",
    ),
    "no cpu": ({"unscheduled": "0/1 nodes are available: 1 Insufficient cpu."}, Reason.UNSCHEDULABLE, "cpu"),
    "no such node": (
        {"unscheduled": "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."},
        Reason.UNSCHEDULABLE,
        "selector",
    ),
    "no claim": (
        {"unscheduled": '0/1 nodes are available: persistentvolumeclaim "nowhere" not found.'},
        Reason.VOLUME_MISSING,
        "nowhere",
    ),
    "unbound claim": (
        {"unscheduled": "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."},
        Reason.VOLUME_MISSING,
        "unbound",
    ),
    "gated": (
        {"unscheduled": "Scheduling is blocked due to non-empty scheduling gates", "gated": True},
        Reason.SCHEDULING,
        "gates",
    ),
    "crash loop that tells no end": (waiting("CrashLoopBackOff", "back-off 5m0s"), Reason.CRASH_LOOP, "5m0s"),
    "waits": ({"node": ""}, Reason.SCHEDULING, ""),
    "image pull": (
        waiting("ImagePullBackOff", 'Back-off pulling image "r/x:1": not found'),
        Reason.IMAGE_PULL_FAILED,
        "not found",
    ),
    "image pull, first try": (waiting("ErrImagePull", "401"), Reason.IMAGE_PULL_FAILED, "401"),
    "image whose signature is wrong": (
        waiting("SignatureValidationFailed", "image pull failed for r/x:1 because the signature validation failed"),
        Reason.IMAGE_PULL_FAILED,
        "signature",
    ),
    "image name": (waiting("InvalidImageName", "couldn't parse"), Reason.IMAGE_INVALID, "parse"),
    "secret of a variable": (
        waiting("CreateContainerConfigError", 'secret "keys" not found'),
        Reason.SECRET_MISSING,
        "keys",
    ),
    "config map of a variable": (
        waiting("CreateContainerConfigError", 'configmap "ca" not found'),
        Reason.CONFIG_MAP_MISSING,
        "ca",
    ),
    "root image": (
        waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
        Reason.POD_REJECTED,
        "root",
    ),
    "secret of a volume": (
        {
            **waiting("ContainerCreating"),
            "complaints": [
                ("FailedMount", 'MountVolume.SetUp failed for volume "credentials" : secret "s3" not found')
            ],
        },
        Reason.SECRET_MISSING,
        "s3",
    ),
    "config map of a volume": (
        {
            **waiting("ContainerCreating"),
            "complaints": [("FailedMount", 'MountVolume.SetUp failed for volume "ca" : configmap "ca" not found')],
        },
        Reason.CONFIG_MAP_MISSING,
        "ca",
    ),
    "volume that cannot be attached": (
        {**waiting("ContainerCreating"), "complaints": [("FailedAttachVolume", "Multi-Attach error")]},
        Reason.VOLUME_MISSING,
        "Multi-Attach",
    ),
    "a volume that the kubelet waits for": (
        {
            **waiting("ContainerCreating"),
            "complaints": [
                (
                    "FailedMount",
                    "Unable to attach or mount volumes: unmounted volumes=[credentials]: context deadline exceeded",
                )
            ],
        },
        Reason.SECRET_MISSING,
        "credentials",
    ),
    "a plan that is on its way": (
        {
            **waiting("ContainerCreating"),
            "complaints": [
                (
                    "FailedMount",
                    'MountVolume.SetUp failed for volume "plan" : failed to sync configmap cache: timed out',
                )
            ],
        },
        Reason.PULLING_IMAGE,
        "n1",
    ),
    "a newer plan refused": (
        {
            "report": Report(
                1, ready=False, generation=1, plan_error="other key", models=report(R, state="loaded").models
            )
        },
        Reason.PLAN_INVALID,
        "other key",
    ),
    "complaint of the past": (
        {"complaints": [("FailedMount", 'secret "s3" not found')], "report": report(R, state="loading")},
        Reason.LOADING,
        "",
    ),
    "container set up": (waiting("ContainerCreating"), Reason.PULLING_IMAGE, "n1"),
    "crash loop": (back_off(code=3, message="Traceback"), Reason.CRASH_LOOP, "exit status 3: Traceback"),
    "segmentation fault": (back_off(code=139, signal=11), Reason.CRASH_LOOP, "signal 11"),
    "cannot be started": (waiting("RunContainerError", "no such file: server"), Reason.CRASH_LOOP, "no such file"),
    "out of memory": (back_off(code=137, reason="OOMKilled"), Reason.OUT_OF_MEMORY, "resources.memory"),
    "out of memory, running again": (
        {"last": ended(137, reason="OOMKilled"), "restarts": 1},
        Reason.OUT_OF_MEMORY,
        "",
    ),
    "ended well": ({"last": ended(0, reason="Completed"), "restarts": 1}, Reason.STARTING, ""),
    "evicted for its disk": (
        {
            "phase": "Failed",
            "reason": "Evicted",
            "message": 'Usage of EmptyDir volume "models" exceeds the limit "1Gi".',
        },
        Reason.DISK_FULL,
        "models",
    ),
    "evicted for the node": (
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
        Reason.EVICTED,
        "low on resource",
    ),
    "node that does not answer": ({"conditions": [{"type": "Ready", "status": "Unknown"}]}, Reason.NODE_LOST, "n1"),
    "unreachable": ({"unreachable": "timed out"}, Reason.POD_UNREACHABLE, "timed out"),
    "plan refused": (
        {"report": Report(1, ready=False, generation=0, plan_error="signature: wrong", models=())},
        Reason.PLAN_INVALID,
        "signature",
    ),
    "no report yet": ({}, Reason.STARTING, ""),
    "downloads": ({"report": report(R, state="downloading")}, Reason.DOWNLOADING, ""),
    "warms up": ({"report": report(R, state="warming")}, Reason.WARMING_UP, ""),
    "waits for its digest": ({"report": report(R, state="loaded")}, Reason.PINNING_DIGEST, ""),
    "another revision's failure": (
        {"report": report("other", state="failed", reason="ModelInvalid")},
        Reason.STARTING,
        "",
    ),
    "serves": ({"ready": True}, Reason.SERVING, ""),
}


@pytest.mark.parametrize("case", CASES)
def test_truth(case: str) -> None:
    given, reason, message = CASES[case]
    found = diagnose.pod(subject(**given), R)
    assert found.reason is reason
    assert message in found.message


@pytest.mark.parametrize("reason", FailureReason)
def test_the_server_says_why_by_its_report_and_by_its_last_words(reason: FailureReason) -> None:
    told = subject(report=report(R, state="failed", reason=reason.value, message="told by the server"))
    left = subject(**back_off(code=78, message=own_words(reason)))
    for found in (diagnose.pod(told, R), diagnose.pod(left, R)):
        assert found.reason.value == reason.value
        assert found.reason.failure, "a failure of the model is one of the ModelDeployment"
        assert found.message == "told by the server"


def subject(
    *,
    report: Any = None,
    complaints: Any = (),
    unreachable: str = "",
    conditions: Any = None,
    gated: bool = False,
    **given: Any,
) -> podset.Pod:
    made = pod("m-set", **given)
    if gated:
        made["status"]["conditions"][1]["reason"] = "SchedulingGated"
    if conditions:
        made["status"]["conditions"] = conditions
    said = tuple(Complaint(reason, message) for reason, message in complaints)
    return podset.pod(made, report, said, unreachable)


def test_a_resource_whose_name_says_nothing_of_a_gpu() -> None:
    made = pod("m-set", unscheduled="0/1 nodes are available: 1 Insufficient example.com/npu.")
    made["spec"]["containers"] = [{"name": "server", "resources": {"limits": {"example.com/npu": "1"}}}]
    assert diagnose.pod(podset.pod(made), R).reason is Reason.INSUFFICIENT_GPU


def test_waiting_for_a_gpu_counts_from_the_scheduler_s_verdict() -> None:
    waits = subject(unscheduled=f"1 Insufficient {GPU}.", created=0, since=7)
    assert diagnose.waits_for_room_since(waits) == stamp(7)
    for message in ("1 Insufficient cpu.", "2 Insufficient memory, 1 Too many pods."):
        assert diagnose.waits_for_room_since(subject(unscheduled=message, since=7)) == stamp(7)
    for message in ("3 node(s) didn't match Pod's node affinity/selector.", 'persistentvolumeclaim "x" not found'):
        assert diagnose.waits_for_room_since(subject(unscheduled=message)) is None, "old pods hold nothing of it"
    assert diagnose.waits_for_room_since(subject(ready=True)) is None


def test_what_a_pod_waits_for_in_the_scheduler_s_words() -> None:
    message = "0/4 nodes are available: 1 Insufficient cpu, 2 Insufficient nvidia.com/gpu, 1 Too many pods."
    assert diagnose.lacks(subject(unscheduled=message)) == ("cpu", "nvidia.com/gpu", "Too many pods")


def test_the_worst_pod_speaks() -> None:
    pods = (
        subject(name="a", report=report(R, state="loading")),
        subject(name="b", **waiting("ErrImagePull", "401")),
        subject(name="c", **back_off(code=137, reason="OOMKilled")),
    )
    assert diagnose.worst(pods, R).reason is Reason.OUT_OF_MEMORY, "what cannot mend itself comes first"
    assert diagnose.worst(pods[:2], R).reason is Reason.IMAGE_PULL_FAILED
    assert diagnose.worst(pods[:1], R).reason is Reason.LOADING
    assert diagnose.worst((), R).reason is Reason.CREATING
    assert diagnose.worst(pods, R).message.startswith("c: ")


def test_an_ended_pod_speaks_until_a_younger_one_serves() -> None:
    evicted = subject(name="a", phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    coming = subject(name="b", created=5, report=report(R, state="loading"))
    assert diagnose.worst((evicted, coming), R).reason is Reason.EVICTED
    serves = subject(name="b", created=5, ready=True)
    starting = subject(name="c", created=9, report=report(R, state="loading"))
    assert diagnose.worst((evicted, serves, starting), R).reason is Reason.LOADING


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('pods "m-x" is forbidden: exceeded quota: none, requested: pods=1, limited: pods=0', "QuotaExceeded"),
        ('pods "m-x" is forbidden: failed quota: none: must specify limits.cpu for: server', "QuotaExceeded"),
        ('pods "m-x" is forbidden: violates PodSecurity "restricted:latest": seccompProfile', "PodRejected"),
        ('pods "m-x" is forbidden: maximum memory usage per Container is 64Mi, but limit is 2Gi', "PodRejected"),
        ('pods "m-x" is forbidden: error looking up service account team/me: serviceaccount "me" not found',
         "ServiceAccountMissing"),
        ('admission webhook "policy" denied the request', "PodRejected"),
    ],
)  # fmt: skip
def test_pods_that_never_come_into_being(message: str, reason: str) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": message, "lastTransitionTime": stamp(3)}
    deployment = {"status": {"conditions": [{"type": "Progressing", "status": "True"}, failure]}}
    for found in (diagnose.workload(deployment, ()), diagnose.workload(None, (deployment,))):
        assert found == diagnose.Finding(Reason(reason), message)
    since = diagnose.waits_for_quota_since(deployment)
    assert since == (stamp(3) if reason == "QuotaExceeded" else None)


def test_a_workload_without_complaints() -> None:
    assert diagnose.workload({"status": {}}, ({"status": {"conditions": []}},)) is None
    assert diagnose.workload(None, ()) is None


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("NameConflict", Reason.NAME_CONFLICT),
        ("QuotaExceeded", Reason.QUOTA_EXCEEDED),
        ("Forbidden", Reason.OPERATOR_FORBIDDEN),
        ("Invalid", Reason.OBJECT_REJECTED),
        ("SomethingNew", Reason.OBJECT_REJECTED),
    ],
)
def test_objects_that_cannot_be_written(told: str, reason: Reason) -> None:
    found = diagnose.problem((Problem(Ref("Service", "m"), told, "it is somebody else's"),))
    assert found == diagnose.Finding(reason, "Service m: it is somebody else's")
    assert diagnose.problem(()) is None


NOT_FOUND = 'rpc error: code = NotFound desc = failed to pull and unpack image "r/x:1": r/x:1: not found'
BACK_OFF = 'Back-off pulling image "r/x:1"'


@pytest.mark.parametrize(
    ("tries", "waits", "event", "told"),
    [
        (NOT_FOUND, f"{BACK_OFF}: ErrImagePull: {NOT_FOUND}", "", NOT_FOUND),
        (NOT_FOUND, BACK_OFF, f'Failed to pull image "r/x:1": {NOT_FOUND}', NOT_FOUND),
        (
            'Get "https://r/v2/": read tcp 198.18.0.2:40001->198.18.0.9:443: i/o timeout',
            f'{BACK_OFF}: ErrImagePull: Get "https://r/v2/": read tcp 198.18.0.2:52345->198.18.0.9:443: i/o timeout',
            "",
            'Get "https://r/v2/": read tcp 198.18.0.9:443: i/o timeout',
        ),
    ],
)
def test_an_image_that_is_pulled_again_and_again_is_told_once(tries: str, waits: str, event: str, told: str) -> None:
    said = [("Failed", event)] if event else []
    for state in (waiting("ErrImagePull", tries), waiting("ImagePullBackOff", waits)):
        found = diagnose.pod(subject(complaints=said, **state), R)
        assert found == diagnose.Finding(Reason.IMAGE_PULL_FAILED, told)


def test_a_back_off_that_says_nothing_is_quoted() -> None:
    assert diagnose.pod(subject(**waiting("ImagePullBackOff", BACK_OFF)), R).message == BACK_OFF


def test_a_message_is_cut() -> None:
    long = subject(**waiting("ErrImagePull", "x" * 5000))
    assert len(diagnose.pod(long, R).message) == diagnose.MESSAGE_LIMIT
