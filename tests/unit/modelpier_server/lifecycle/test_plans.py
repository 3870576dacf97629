"""How plans come in: pushed or mounted, checked, and what is answered."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from modelpier_server.contract import PLAN_PATH, SIGNATURE_HEADER, STATE_PATH, ModelState, Plan, Report, sign
from modelpier_server.errors import InvalidRequest
from modelpier_server.lifecycle.admin import routes
from modelpier_server.lifecycle.plans import LARGEST, Intake, PlanForged, PlanRefused, PlanStale, Trust, admit
from modelpier_server.lifecycle.watch import watch
from modelpier_server.protocol.http import Request, Response

from .conftest import Bench, model

KEY = bytes(range(32))
PUBLIC = base64.b64encode(Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw()).decode()
TRUST = Trust(PUBLIC, "owner", "set")


def signed(generation: int = 1, owner: str = "owner", revisions: str = "a", pod_set: str = "set") -> tuple[bytes, str]:
    raw = Plan(owner, generation, tuple(model(r) for r in revisions), pod_set).encode()
    return raw, sign(raw, KEY)


def test_a_good_plan() -> None:
    assert admit(*signed(2), TRUST, held=1).generation == 2


@pytest.mark.parametrize("held", [2, 3])
def test_equal_and_older_plans_are_stale(held: int) -> None:
    with pytest.raises(PlanStale, match="2 is not newer"):
        admit(*signed(2), TRUST, held=held)


def test_a_plan_of_another_owner() -> None:
    with pytest.raises(PlanRefused, match="owner_uid"):
        admit(*signed(owner="thief"), TRUST, held=0)


@pytest.mark.parametrize("pod_set", ["other", ""])
def test_a_plan_for_another_pod_set(pod_set: str) -> None:
    """Signed by the same operator for the same owner: only its place is wrong."""
    with pytest.raises(PlanRefused, match=r"plan\.pod_set: is for (other|none), but this server belongs to set"):
        admit(*signed(pod_set=pod_set), TRUST, held=0)


def test_without_a_pod_set_of_its_own_a_server_takes_any() -> None:
    assert admit(*signed(pod_set="other"), Trust(PUBLIC, "owner"), held=0).pod_set == "other"


def test_the_signature_is_looked_at_first() -> None:
    """Nothing that somebody else wrote is parsed."""
    with pytest.raises(PlanForged):
        admit(b"{", sign(b"other", KEY), TRUST, held=0)


def test_a_revision_twice() -> None:
    with pytest.raises(PlanRefused, match="revision a is there 2 times"):
        admit(*signed(revisions="aa"), TRUST, held=0)


def test_a_plan_without_end() -> None:
    with pytest.raises(PlanRefused, match="larger"):
        admit(b" " * (LARGEST + 1), "", TRUST, held=0)


# ------------------------------------------------------------------------------------------------ push
def intake(bench: Bench) -> Intake:
    return Intake(TRUST, lambda: bench.board.generation, bench.follower.apply, bench.follower.refuse)


class Call(Protocol):
    """A request to the admin port."""

    def __call__(
        self, method: str, path: str, raw: bytes = b"", signature: str = "", /, **query: str
    ) -> Awaitable[Response]: ...


def admin(bench: Bench) -> Call:
    found = {(method, path): handler for method, path, handler in routes(intake(bench), bench.board)}

    def call(method: str, path: str, raw: bytes = b"", signature: str = "", /, **query: str) -> Awaitable[Response]:
        headers = {SIGNATURE_HEADER.lower(): signature} if signature else {}
        return found[method, path](Request(method, path, query, headers, raw))

    return call


async def test_push(bench: Bench) -> None:
    call = admin(bench)
    answer = await call("PUT", PLAN_PATH, *signed(3))
    assert (answer.status, Report.decode(answer.body).generation) == (200, 3)
    await bench.reach(a=ModelState.READY)
    answer = await call("PUT", PLAN_PATH, *signed(3))
    assert (answer.status, Report.decode(answer.body).plan_error) == (409, "")


@pytest.mark.parametrize(
    ("raw", "signature", "status"),
    [
        (*signed(2, owner="thief"), 400),
        (*signed(2, pod_set="other"), 400),
        (b"{", sign(b"{", KEY), 400),
        (signed(2)[0], signed(3)[1], 403),
        (signed(2)[0], "", 403),
    ],
)
async def test_refused_pushes_keep_the_held_plan(bench: Bench, raw: bytes, signature: str, status: int) -> None:
    call = admin(bench)
    await call("PUT", PLAN_PATH, *signed(1))
    answer = await call("PUT", PLAN_PATH, raw, signature)
    assert answer.status == status
    assert json.loads(answer.body)["error"] == bench.board.report().plan_error != ""
    assert bench.board.report().generation == 1
    assert set(bench.board.records) == {"a"}


# ------------------------------------------------------------------------------------------------ report
async def test_long_poll_answers_with_the_next_change(bench: Bench) -> None:
    call = admin(bench)
    serial = bench.board.serial
    waiting = asyncio.ensure_future(call("GET", STATE_PATH, after=str(serial), wait="20"))
    await asyncio.sleep(0)
    assert not waiting.done()
    await call("PUT", PLAN_PATH, *signed())
    assert Report.decode((await asyncio.wait_for(waiting, 2)).body).serial > serial


async def test_long_poll_ends_with_its_time(bench: Bench) -> None:
    answer = await admin(bench)("GET", STATE_PATH, after="99999", wait="0.02")
    assert Report.decode(answer.body).serial == bench.board.serial


async def test_too_many_long_polls_are_answered_at_once(bench: Bench) -> None:
    bench.board.MOST_WAITERS = 2
    call = admin(bench)
    waiting = [asyncio.ensure_future(call("GET", STATE_PATH, after="99", wait="20")) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.wait_for(call("GET", STATE_PATH, after="99", wait="20"), 1)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("query", [{"after": "x"}, {"wait": "nan"}, {"wait": "inf"}, {"after": "1e400"}])
async def test_mistaken_queries_are_named(bench: Bench, query: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(query))):
        await admin(bench)("GET", STATE_PATH, **query)


# ------------------------------------------------------------------------------------------------ mounted
class Volume:
    """A ConfigMap's volume: files are links into a folder that is switched as a whole."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.count = 0
        self.file = root / "plan.json"

    def switch(self, raw: bytes, signature: str) -> None:
        self.count += 1
        folder = self.root / f"..{self.count}"
        folder.mkdir(parents=True)
        (folder / "plan.json").write_bytes(raw)
        (folder / "plan.sig").write_text(signature + "\n")
        new = self.root / "..data_tmp"
        new.symlink_to(folder.name)
        new.rename(self.root / "..data")
        if self.count == 1:
            for name in ("plan.json", "plan.sig"):
                (self.root / name).symlink_to(f"..data/{name}")


async def test_a_mounted_plan_is_followed_through_switches(bench: Bench, tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    task = asyncio.ensure_future(watch(volume.file, intake(bench).offer, bench.follower.refuse, interval=0.005))
    await bench.until(lambda: "cannot be read" in bench.board.plan_error)
    volume.switch(*signed(1))
    await bench.until(lambda: bench.board.generation == 1)
    volume.switch(*signed(2, revisions="ab"))
    await bench.until(lambda: bench.board.generation == 2)
    volume.switch(signed(3)[0], signed(4)[1])
    await bench.until(lambda: "signature" in bench.board.plan_error)
    assert bench.board.generation == 2
    volume.switch(*signed(4))
    await bench.until(lambda: bench.board.generation == 4)
    assert bench.board.plan_error == ""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_older_mounted_plan_does_not_undo_a_push(bench: Bench, tmp_path: Path) -> None:
    """A kubelet's copy lags behind by up to a minute."""
    volume = Volume(tmp_path)
    looked = asyncio.Event()

    def offer(raw: bytes, signature: str) -> None:
        looked.set()
        intake(bench).offer(raw, signature)

    intake(bench).offer(*signed(7, revisions="ab"))
    volume.switch(*signed(5))
    task = asyncio.ensure_future(watch(volume.file, offer, bench.follower.refuse, interval=0.005))
    await asyncio.wait_for(looked.wait(), 5)
    assert (bench.board.generation, bench.board.plan_error, set(bench.board.records)) == (7, "", {"a", "b"})
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
