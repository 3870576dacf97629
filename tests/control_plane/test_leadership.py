"""Two real operators and one Lease: one acts at a time, whatever happens to the other."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from control_plane.operators import OperatorProcess, audit_lines, model_deployment, observed
from modelpier_cluster import ControlPlane
from modelpier_cluster.audit import WRITING_VERBS
from modelpier_operator import names
from modelpier_operator.cluster.kinds import CHILDREN
from support.control_plane import OPERATOR_NAMESPACE, missing, wait_until
from support.real_api import ApiServer

pytestmark = [pytest.mark.control_plane, pytest.mark.skipif(bool(missing()), reason=missing())]
QUICK = {"MODELPIER_LEASE_DURATION": "4", "MODELPIER_RENEW_DEADLINE": "3"}
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases"
Start = Callable[..., OperatorProcess]


@pytest.fixture
def start(shared_control_plane: ControlPlane, namespace: str) -> Iterator[Start]:
    """Starts an operator for the test's namespace and lease."""
    with ExitStack() as stack:

        def one(environment: dict[str, str] | None = None) -> OperatorProcess:
            own = {"MODELPIER_WATCH_NAMESPACES": namespace, "MODELPIER_LEASE_NAME": namespace}
            process = OperatorProcess(shared_control_plane.kubeconfig, {**own, **(environment or {})})
            return stack.enter_context(process).wait_ready()

        yield one


def test_a_terminated_leader_hands_over_within_two_seconds(start: Start, api_server: ApiServer, namespace: str) -> None:
    first = start().wait_leading()
    second = start()
    assert second.metric("modelpier_operator_leader") == 0
    begin = time.monotonic()
    first.signal(signal.SIGTERM)
    second.wait_leading(2.0)
    assert first.process.wait(2.0) == 0
    assert time.monotonic() - begin <= 2.5
    api_server.create("modeldeployments", model_deployment("m", namespace))
    wait_until("the second one acts", lambda: observed(api_server, "m", namespace))


def test_a_terminated_standby_leaves_at_once(start: Start) -> None:
    leader = start().wait_leading()
    standby = start()
    standby.signal(signal.SIGTERM)
    assert standby.process.wait(2.0) == 0
    assert leader.metric("modelpier_operator_leader") == 1


def test_a_killed_leader_is_replaced_within_sixteen_seconds(
    start: Start, api_server: ApiServer, namespace: str
) -> None:
    first = start().wait_leading()
    second = start()
    begin = time.monotonic()
    first.signal(signal.SIGKILL)
    second.wait_leading(16.5)
    assert time.monotonic() - begin > 5, "nobody leads while the claim of the first one may last"
    api_server.create("modeldeployments", model_deployment("m", namespace))
    wait_until("the second one acts", lambda: observed(api_server, "m", namespace))


def test_a_frozen_leader_never_writes_after_its_successor_leads(
    start: Start, shared_control_plane: ControlPlane, api_server: ApiServer, namespace: str
) -> None:
    """SIGSTOP in the middle of a burst, SIGCONT once another one leads: not one write of the first is carried out."""
    offset = shared_control_plane.audit_log.stat().st_size
    first = start(QUICK).wait_leading()
    identity = _lease(api_server, namespace)["holderIdentity"]
    second = start(QUICK)
    for number in range(40):
        api_server.create("modeldeployments", model_deployment(f"md-{number}", namespace))
    first.signal(signal.SIGSTOP)
    second.wait_leading(10.0)
    taken = datetime.fromisoformat(str(_lease(api_server, namespace)["acquireTime"]))
    for number in range(40):
        api_server.create("modeldeployments", model_deployment(f"later-{number}", namespace))
    first.signal(signal.SIGCONT)
    assert first.process.wait(10) == 3, first.log()[-2000:]
    for name in [f"md-{n}" for n in range(40)] + [f"later-{n}" for n in range(40)]:
        wait_until(f"{name} is looked after", partial(observed, api_server, name, namespace))
    second.wait_idle()
    written = _writes(shared_control_plane.audit_log, offset, str(identity))
    assert written, "the first one was in the middle of its work"
    assert [w for w in written if w[0] > taken] == []


def test_a_leader_that_was_frozen_but_kept_its_lease_goes_on_working(
    start: Start, api_server: ApiServer, namespace: str
) -> None:
    """Continued when no write may start any more, but the lease can still be renewed."""
    # Writes may take 3 s of the 9: none starts between 6 s after a renewal and the next one, which comes after 7.5 s.
    slow = {"LEASE_DURATION": "9", "RENEW_DEADLINE": "8", "RETRY_PERIOD": "7.5"}
    leader = start({f"MODELPIER_{name}": value for name, value in slow.items()}).wait_leading()
    before = _lease(api_server, namespace)["renewTime"]
    wait_until("it renews", lambda: _lease(api_server, namespace)["renewTime"] != before)
    renewed = time.monotonic()
    leader.signal(signal.SIGSTOP)
    for number in range(40):
        api_server.create("modeldeployments", model_deployment(f"md-{number}", namespace))
    time.sleep(max(0.0, renewed + 6.3 - time.monotonic()))
    leader.signal(signal.SIGCONT)
    for number in range(40):
        wait_until(f"md-{number} is looked after", partial(observed, api_server, f"md-{number}", namespace))
    assert leader.process.poll() is None
    assert "waits for the lease" in leader.log(), "writes were interrupted"


@pytest.mark.parametrize("after", [1, 3, 6, 8, 12])
def test_killed_at_a_write_and_started_again_ends_the_same(
    start: Start, shared_control_plane: ControlPlane, api_server: ApiServer, namespace: str, after: int
) -> None:
    offset = shared_control_plane.audit_log.stat().st_size
    for number in range(3):
        api_server.create("modeldeployments", model_deployment(f"md-{number}", namespace, replicas=2))
    victim = OperatorProcess(
        shared_control_plane.kubeconfig,
        {"MODELPIER_WATCH_NAMESPACES": namespace, "MODELPIER_LEASE_NAME": f"{namespace}-victim"},
    )
    with victim:
        wait_until("it has written", lambda: len(_children(shared_control_plane.audit_log, offset, namespace)) >= after)
        victim.signal(signal.SIGKILL)
    operator = start().wait_leading()
    for number in range(3):
        wait_until("the status is written", partial(observed, api_server, f"md-{number}", namespace))
    operator.wait_idle()
    created = [
        (r, n) for verb, r, n in _children(shared_control_plane.audit_log, offset, namespace) if verb == "create"
    ]
    # Not all that was made has a good answer in the log: one may have been on its way to the operator that was killed.
    assert len(created) == len(set(created)), "no child was made twice"
    assert _living(api_server, namespace) == 3 * 7, "every child was made, and once"
    before = len(_children(shared_control_plane.audit_log, offset, namespace))
    start({"MODELPIER_LEASE_NAME": f"{namespace}-third"}).wait_leading().wait_idle()
    assert len(_children(shared_control_plane.audit_log, offset, namespace)) == before


def _living(server: ApiServer, namespace: str) -> int:
    """How many children there are, of all ModelDeployments of the namespace."""
    ours = f"?labelSelector={names.LABEL_MANAGED_BY}%3D{names.MANAGED_BY}"
    return sum(len(server.call("GET", kind.collection(namespace) + ours)["items"]) for kind in CHILDREN.values())


def _lease(server: ApiServer, name: str) -> dict[str, object]:
    spec: dict[str, object] = server.call("GET", f"{LEASES}/{name}")["spec"]
    return spec


def _writes(log: Path, offset: int, identity: str) -> list[tuple[datetime, str, str]]:
    """(time, verb, resource) of each write of one process but those of its Lease."""
    return [
        (datetime.fromisoformat(e["requestReceivedTimestamp"]), e["verb"], e["objectRef"]["resource"])
        for e in audit_lines(log, offset)
        if identity in e.get("userAgent", "") and e["verb"] in WRITING_VERBS and e["objectRef"]["resource"] != "leases"
    ]


def _children(log: Path, offset: int, namespace: str) -> list[tuple[str, str, str]]:
    """(verb, resource, name) of each write of an operator in the namespace, statuses included."""
    return [
        (e["verb"], e["objectRef"]["resource"], e["objectRef"].get("name", ""))
        for e in audit_lines(log, offset)
        if e.get("userAgent", "").startswith("modelpier-operator")
        and e["verb"] in WRITING_VERBS
        and e["objectRef"].get("namespace") == namespace
        and e["responseStatus"]["code"] < 300
    ]
