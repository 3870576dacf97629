"""With the real garbage collector: what a ModelDeployment leaves behind, and an API server that comes and goes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from control_plane.operators import OperatorProcess, model_deployment, observed
from modelpier_cluster import ControlPlane
from support.control_plane import missing, prepared, wait_until
from support.real_api import OWNED, ApiServer

pytestmark = [pytest.mark.control_plane, pytest.mark.skipif(bool(missing()), reason=missing())]
NAMESPACE = "default"


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with prepared(controller_manager=True) as made:
        yield made


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> Iterator[ApiServer]:
    made = ApiServer(control_plane.kubeconfig)
    yield made
    made.close()


@pytest.fixture(scope="module")
def operator(control_plane: ControlPlane) -> Iterator[OperatorProcess]:
    with OperatorProcess(control_plane.kubeconfig) as process:
        yield process.wait_ready().wait_leading()


def _left(server: ApiServer) -> list[str]:
    managed = [
        f"{kind.plural}/{item['metadata']['name']}"
        for kind in OWNED
        for item in server.list(kind.plural, NAMESPACE)
        if (item["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") == "modelpier"
    ]
    return managed + [f"replicasets/{i['metadata']['name']}" for i in server.list("replicasets", NAMESPACE)]


def test_a_deletion_leaves_nothing_behind(server: ApiServer, operator: OperatorProcess) -> None:
    for name in ("m", "other"):
        server.create("modeldeployments", model_deployment(name, NAMESPACE, replicas=2))
    for name in ("m", "other"):
        wait_until("the status is written", partial(observed, server, name, NAMESPACE))
    operator.wait_idle()
    assert len(_left(server)) >= 2 * 8
    for name in ("m", "other"):
        server.delete("modeldeployments", NAMESPACE, name)
    wait_until("everything is gone", lambda: _left(server) == [], 60)
    operator.wait_idle()
    assert _left(server) == []


def test_one_that_is_made_again_at_once_gets_everything_anew(server: ApiServer, operator: OperatorProcess) -> None:
    """Children of its predecessor are still there, under the same names."""
    first = server.create("modeldeployments", model_deployment("m", NAMESPACE))
    wait_until("the status is written", lambda: observed(server, "m", NAMESPACE))
    server.delete("modeldeployments", NAMESPACE, "m")
    second = server.create("modeldeployments", model_deployment("m", NAMESPACE))
    wait_until("the status is written", lambda: observed(server, "m", NAMESPACE), 60)

    def owners() -> set[str]:
        return {
            reference["uid"]
            for kind in OWNED
            for item in server.list(kind.plural, NAMESPACE)
            for reference in item["metadata"].get("ownerReferences") or ()
            if reference["kind"] == "ModelDeployment"
        }

    uids = {"first": first["metadata"]["uid"], "second": second["metadata"]["uid"]}
    wait_until("all belongs to the second one", lambda: owners() == {uids["second"]}, 90)
    wait_until("all seven are there", lambda: bool(server.list("deployments", NAMESPACE)), 90)
    operator.wait_idle()
    server.delete("modeldeployments", NAMESPACE, "m")
    wait_until("everything is gone", lambda: _left(server) == [], 60)


def test_an_api_server_that_comes_back_is_followed_again(
    control_plane: ControlPlane, server: ApiServer, operator: OperatorProcess
) -> None:
    control_plane.stop_api_server()
    control_plane.start_api_server()
    server.create("modeldeployments", model_deployment("back", NAMESPACE))
    wait_until("the status is written", lambda: observed(server, "back", NAMESPACE), 60)
    assert operator.process.poll() is None
    assert operator.ask("/healthz") == "ok"
