"""One loopback control plane for the whole folder, with the CRD installed; each test gets a namespace of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from modelpier_cluster import ControlPlane
from support.control_plane import missing, prepared
from support.real_api import ApiServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def shared_control_plane() -> Iterator[ControlPlane]:
    """Without controller manager: nobody but the operator acts."""
    if reason := missing():
        pytest.skip(reason)
    with prepared() as control_plane:
        yield control_plane


@pytest.fixture(scope="session")
def api_server(shared_control_plane: ControlPlane) -> Iterator[ApiServer]:
    server = ApiServer(shared_control_plane.kubeconfig)
    yield server
    server.close()


@pytest.fixture
def namespace(api_server: ApiServer) -> str:
    name = f"team-{next(_numbers)}"
    api_server.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return name
