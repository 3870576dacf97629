"""The kubelet's newest Warning Events about pods, a few per pod: a Sink that an informer fills, read by `observe`.

Some truths stand nowhere else: that a volume cannot be mounted because its Secret is missing, for one. Everything is
bounded, since anyone may write Events.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from modelpier_operator.cluster.kinds import Key
from modelpier_operator.decide.facts import Complaint

Object = dict[str, Any]

REASONS = frozenset(
    {
        "FailedMount",
        "FailedAttachVolume",
        "FailedMapVolume",
        "FailedCreatePodSandBox",
        "FailedCreatePodContainer",
        "Failed",
        "FailedScheduling",
        "Evicted",
        "InspectFailed",
        "NetworkNotReady",
        "UnexpectedAdmissionError",
    }
)
_NAMES_A_STATE = re.compile(r"Error: \w+$")
"""`Error: ImagePullBackOff` stands in the pod's status as well; what it would replace, the cause of it, does not."""
_SUM = re.compile(r"unmounted volumes=\[([^\]]*)\]")
_VOLUME = re.compile(r"for volume \"([^\"]*)\"")
PODS = 4096
PER_POD = 4
MESSAGE = 1024


class Complaints:
    """`changed` is called with a pod's (namespace, name) when something new is said about it."""

    def __init__(self, changed: Callable[[Key], None]) -> None:
        self._changed = changed
        self._by_pod: OrderedDict[str, OrderedDict[str, Complaint]] = OrderedDict()

    def of(self, pod_uid: str) -> tuple[Complaint, ...]:
        """Newest last, one per reason."""
        return tuple(self._by_pod.get(pod_uid, {}).values())

    def put(self, manifest: Object) -> None:
        about, reason = manifest.get("involvedObject") or {}, manifest.get("reason") or ""
        uid = about.get("uid")
        if not uid or reason not in REASONS:
            return
        complaint = Complaint(reason, (manifest.get("message") or "")[:MESSAGE])
        said = self._by_pod.setdefault(uid, OrderedDict())
        self._by_pod.move_to_end(uid)
        if said.get(reason) == complaint or _says_less(complaint, said.get(reason)):
            return
        said[reason] = complaint
        said.move_to_end(reason)
        self._trim(said)
        self._changed((about.get("namespace") or "", about.get("name") or ""))

    def _trim(self, said: OrderedDict[str, Complaint]) -> None:
        while len(said) > PER_POD:
            said.popitem(last=False)
        while len(self._by_pod) > PODS:
            self._by_pod.popitem(last=False)

    def forget(self, pod_uid: str) -> None:
        self._by_pod.pop(pod_uid, None)

    def drop(self, manifest: Object) -> None:
        """An Event ends after an hour; what it said may still hold. The pod's own end makes us forget."""

    def retain(self, namespace: str | None, seen: set[Key], version: int) -> None:
        """As for `drop`."""

    def advance(self, namespace: str | None, version: int) -> None:
        """Nothing here is written by us."""

    def denied(self) -> None:
        """Nothing is known then; what pods say of themselves remains."""


def _says_less(new: Complaint, known: Complaint | None) -> bool:
    """A kubelet tells a cause and then a sum of what it waits for, in turns: the cause is what stays true."""
    if _NAMES_A_STATE.match(new.message):
        return True
    waits_for, named = _SUM.search(new.message), _VOLUME.search(known.message) if known else None
    return bool(waits_for and named and named.group(1) in re.split(r"[\s,]+", waits_for.group(1)))
