from __future__ import annotations

from typing import Any

from modelpier_operator.cluster.caches import Caches
from modelpier_operator.cluster.complaints import MESSAGE, PODS, Complaints
from modelpier_operator.decide.facts import Complaint
from modelpier_operator.telemetry import Telemetry
from support.api import MemoryApi
from support.builders import settings


def event(reason: str = "FailedMount", message: str = "no Secret", pod: str = "p") -> dict[str, Any]:
    about = {"kind": "Pod", "namespace": "team", "name": pod, "uid": f"uid-{pod}"}
    return {"involvedObject": about, "reason": reason, "message": message}


def test_the_newest_of_each_reason_is_kept_and_told_once() -> None:
    told: list[tuple[str, str]] = []
    complaints = Complaints(told.append)
    for message in ("first", "second", "second"):
        complaints.put(event(message=message))
    assert complaints.of("uid-p") == (Complaint("FailedMount", "second"),)
    assert told == [("team", "p")] * 2


def test_other_reasons_are_not_kept() -> None:
    complaints = Complaints(lambda _: None)
    complaints.put(event("BackOff"))
    assert complaints.of("uid-p") == ()


def test_a_cause_stays_while_the_kubelet_repeats_what_follows_from_it() -> None:
    told: list[tuple[str, str]] = []
    complaints = Complaints(told.append)
    cause = 'MountVolume.SetUp failed for volume "credentials" : secret "s3" not found'
    sum_of_it = "Unable to attach or mount volumes: unmounted volumes=[ca credentials]: context deadline exceeded"
    pull = 'Failed to pull image "r/x:1": not found'
    for _ in range(3):
        for reason, message in (("FailedMount", cause), ("FailedMount", sum_of_it)):
            complaints.put(event(reason, message))
        for message in (pull, "Error: ErrImagePull", "Error: ImagePullBackOff"):
            complaints.put(event("Failed", message))
    assert complaints.of("uid-p") == (Complaint("FailedMount", cause), Complaint("Failed", pull))
    assert len(told) == 2
    another = "Unable to attach or mount volumes: unmounted volumes=[models]: context deadline exceeded"
    complaints.put(event("FailedMount", another))
    assert Complaint("FailedMount", another) in complaints.of("uid-p")


def test_whoever_writes_many_events_fills_nothing() -> None:
    complaints = Complaints(lambda _: None)
    for number in range(PODS + 10):
        complaints.put(event(pod=str(number), message="x" * 10_000))
    assert complaints.of("uid-0") == ()
    [newest] = complaints.of(f"uid-{PODS + 9}")
    assert len(newest.message) == MESSAGE


async def test_what_was_said_of_a_pod_goes_with_it() -> None:
    caches = Caches(MemoryApi().connect(), settings(), Telemetry(), lambda _: None)
    manifest = {"metadata": {"name": "p", "namespace": "team", "uid": "uid-p", "resourceVersion": "1", "labels": {}}}
    caches.pods.put(manifest)
    caches.complaints.put(event())
    assert caches.complaints.of("uid-p")
    caches.pods.drop(manifest)
    assert caches.complaints.of("uid-p") == ()
