"""A loopback control plane with Modelpier's CRD in it, for tests that need a real API server."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from modelpier_cluster import ClusterError, ControlPlane
from modelpier_cluster.build import KUBE, programs

CRD = Path(__file__).parents[2] / "crds" / "modelpier.dev_modeldeployments.yaml"
OPERATOR_NAMESPACE = "modelpier-system"


def missing() -> str:
    """Why there cannot be one, empty when there can."""
    try:
        programs([KUBE])
    except ClusterError as error:
        return str(error)
    return "" if shutil.which("openssl") else "openssl is missing: install the package openssl"


@contextlib.contextmanager
def prepared(*, controller_manager: bool = False) -> Iterator[ControlPlane]:
    with ControlPlane(controller_manager=controller_manager) as control_plane:
        control_plane.kubectl("apply", "--server-side", "-f", str(CRD))
        control_plane.kubectl("create", "namespace", OPERATOR_NAMESPACE)
        control_plane.kubectl("wait", "--for=condition=Established", "crd/modeldeployments.modelpier.dev")
        yield control_plane


def wait_until(what: str, done: Callable[[], bool], seconds: float = 30.0) -> None:
    """Raises AssertionError naming `what` when it is not so within `seconds`."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)
