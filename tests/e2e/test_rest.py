"""At rest nothing is written, for as long as one looks: ten minutes of it, on real nodes, with pods that serve and pods
that fail for ever, counted from the API server's audit log.

tests/control_plane/test_operator.py looks for ten seconds, in every run of `make test`.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from e2e.traffic import assert_nothing_lost, load
from e2e.world import Manifest, World, condition, model_deployment
from modelpier_cluster.audit import events, writes

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(1200)]

REST = 600.0
QUIET = 20.0
"""Seconds without a write after which it counts as at rest."""


class Ledger:
    """What the operator wrote since it was looked at last, its Lease aside."""

    def __init__(self, path: Path, account: str) -> None:
        self._path, self._account = path, account
        _, self._offset = events(path)
        self.leases = 0

    def news(self) -> list[str]:
        recorded, self._offset = events(self._path, self._offset)
        written = writes(recorded, user=self._account)
        others = [line for line in written if line.split()[1] != "leases"]
        self.leases += len(written) - len(others)
        return others


@pytest.fixture
def ledger(world: World, audit_log: Path) -> Ledger:
    return Ledger(audit_log, f"system:serviceaccount:{world.system_namespace}:modelpier-operator")


def test_ten_minutes_at_rest(
    world: World,
    namespace: str,
    digits: dict[str, str],
    no_model: str,
    image: list[float],
    registry: str,
    ledger: Ledger,
) -> None:
    nowhere = f"{registry}/no-such-image:1"
    world.apply(
        model_deployment("serving", digits["1"], replicas=2),
        model_deployment("no-image", digits["1"], server={"image": nowhere}),
        model_deployment("no-room", digits["1"], resources={"gpu": 64}),
        model_deployment("no-secret", digits["1"], model={"credentialsSecret": "nowhere"}),
        model_deployment("no-model", no_model),
        namespace=namespace,
    )
    world.wait_ready("serving", namespace)
    world.wait_told("no-image", namespace, "ImagePullFailed", nowhere)
    world.wait_told("no-room", namespace, "InsufficientGPU", "nvidia.com/gpu")
    world.wait_told("no-secret", namespace, "SecretMissing", "nowhere")
    world.wait_told("no-model", namespace, "ModelInvalid", "INVALID_PROTOBUF")
    come_to_rest(world, ledger)
    names = ("serving", "no-image", "no-room", "no-secret", "no-model")
    before = {name: world.md(name, namespace) for name in names}
    with load(world, "serving", namespace, image, rate=5) as tally:
        end = time.monotonic() + REST
        while time.monotonic() < end:
            assert ledger.news() == [], (
                f"{end - time.monotonic():.0f} s before the end:\n{told(before, world, namespace)}"
            )
            time.sleep(1)
    assert ledger.leases > REST / 10, "the operator led all the time, and its writes are seen"
    assert_nothing_lost(tally, at_least=2000)
    assert {name: world.md(name, namespace) for name in names} == before


def come_to_rest(world: World, ledger: Ledger) -> None:
    quiet_since = [time.monotonic()]

    def at_rest() -> bool:
        if ledger.news():
            quiet_since[0] = time.monotonic()
        return time.monotonic() - quiet_since[0] > QUIET

    world.wait(at_rest, f"{QUIET:g} s without a write", 120)


def told(before: dict[str, Manifest], world: World, namespace: str) -> str:
    """What Ready says now beside what it said before, where that differs."""
    pairs = {
        name: (condition(md, "Ready"), condition(world.md(name, namespace), "Ready")) for name, md in before.items()
    }
    return "\n".join(f"{name}:\n  {old}\n  {new}" for name, (old, new) in pairs.items() if old != new)
