"""Reports against model servers' admin ports on loopback, played by a small web server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from modelpier_operator.cluster import reports as module
from modelpier_operator.cluster.reports import Reports
from modelpier_operator.decide.facts import PlanPush
from modelpier_server.contract import PLAN_PATH, SIGNATURE_HEADER, STATE_PATH, Report
from support.builders import report

KEY = ("team", "m")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
POD = ("uid", "127.0.0.1")


class Server:
    """A model server's admin port."""

    def __init__(self) -> None:
        self.report: Report = replace(report("r"), generation=1)
        self.changed = asyncio.Event()
        self.taken: list[tuple[bytes, str]] = []
        self.answer: int = 200
        self.asked = 0
        self.instead: Handler | None = None
        """Answers in place of the state."""
        self.port = 0

    def say(self, **changes: Any) -> None:
        self.report = replace(self.report, serial=self.report.serial + 1, **changes)
        self.changed.set()

    async def state(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.instead:
            return await self.instead(request)
        after, wait = int(request.query["after"]), float(request.query["wait"])
        if self.report.serial <= after:
            self.changed.clear()
            try:
                async with asyncio.timeout(wait):
                    await self.changed.wait()
            except TimeoutError:
                pass
        return web.Response(body=self.report.encode())

    async def plan(self, request: web.Request) -> web.Response:
        self.taken.append((await request.read(), request.headers[SIGNATURE_HEADER]))
        if self.answer == 200:
            self.say(generation=2)
        return web.Response(status=self.answer, body=self.report.encode() if self.answer in (200, 409) else b"no")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made, app = Server(), web.Application()
    app.router.add_get(STATE_PATH, made.state)
    app.router.add_put(PLAN_PATH, made.plan)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
async def reports(server: Server) -> AsyncIterator[Reports]:
    made = Reports(lambda _: None, port=server.port, grace=0.2)
    yield made
    await made.stop()


def push(plan: bytes = b"plan") -> PlanPush:
    return PlanPush("uid", "127.0.0.1", plan, "signature")


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110 - what changes is behind a socket
            await asyncio.sleep(0.01)


async def test_a_followed_pod_is_known_and_every_change_arrives(server: Server, reports: Reports) -> None:
    reports.attend(KEY, ["uid"], [POD], [])
    await until(lambda: reports.report("uid") == server.report)
    server.say(ready=False)
    await until(lambda: (known := reports.report("uid")) and not known.ready)


async def test_what_is_no_longer_followed_is_still_known_until_the_pod_goes(server: Server, reports: Reports) -> None:
    reports.attend(KEY, ["uid"], [POD], [])
    await until(lambda: reports.report("uid"))
    reports.attend(KEY, ["uid"], [], [])
    await until(lambda: len(reports) == 0)
    assert reports.report("uid") == server.report
    reports.attend(KEY, [], [], [])
    assert reports.report("uid") is None


async def test_a_plan_arrives_with_its_signature_although_a_poll_is_waiting(server: Server, reports: Reports) -> None:
    reports.attend(KEY, ["uid"], [POD], [])
    await until(lambda: reports.report("uid"))
    reports.attend(KEY, ["uid"], [POD], [push()])
    await until(lambda: (known := reports.report("uid")) and known.generation == 2)
    assert server.taken == [(b"plan", "signature")]


async def test_a_server_that_holds_a_newer_plan_says_so(server: Server, reports: Reports) -> None:
    server.answer = 409
    server.say(generation=9)
    reports.attend(KEY, ["uid"], [], [push()])
    await until(lambda: (known := reports.report("uid")) and known.generation == 9)
    await until(lambda: len(reports) == 0)


async def test_a_refused_plan_is_told_and_tried_again(server: Server, reports: Reports) -> None:
    server.answer = 403
    reports.attend(KEY, ["uid"], [], [push()])
    await until(lambda: "403" in reports.unreachable("uid"))
    server.answer = 200
    await until(lambda: (known := reports.report("uid")) and known.generation == 2)
    assert reports.unreachable("uid") == ""


async def test_a_port_that_stays_closed_is_told_after_a_while(server: Server) -> None:
    changes: list[tuple[str, str]] = []
    reports = Reports(changes.append, port=server.port + 1 if server.port < 65535 else 1, grace=0.3)
    reports.attend(KEY, ["uid"], [POD], [])
    await until(lambda: reports.unreachable("uid"))
    assert changes == [KEY]
    reports.forget(KEY)
    assert reports.unreachable("uid") == ""
    await reports.stop()


async def test_a_report_that_comes_in_pieces_is_put_together(server: Server, reports: Reports) -> None:
    async def in_pieces(request: web.Request) -> web.StreamResponse:
        raw, response = server.report.encode(), web.StreamResponse()
        await response.prepare(request)
        await response.write(raw[:20])
        await asyncio.sleep(0.1)
        await response.write(raw[20:])
        return response

    server.instead = in_pieces
    reports.attend(KEY, ["uid"], [POD], [])
    await until(lambda: reports.report("uid") == server.report or reports.unreachable("uid"))
    assert reports.unreachable("uid") == ""


async def test_a_report_without_end_is_refused(server: Server, reports: Reports) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * (1 << 16))

    server.instead = endless
    reports.attend(KEY, ["uid"], [POD], [])
    await until(lambda: "longer than 1048576 bytes" in reports.unreachable("uid"))
    assert reports.report("uid") is None


@pytest.mark.parametrize("how", ["never an answer", "never the end", "no HTTP"])
async def test_a_server_that_does_not_answer_in_time_is_told_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if how == "never the end":
            await response.prepare(request)
            await response.write(b"{")
        if how == "no HTTP":
            assert request.transport
            request.transport.write(b"what?\r\n\r\n")
        await asyncio.sleep(30)
        return response

    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.1)
    changes: list[tuple[str, str]] = []
    reports, server.instead = Reports(changes.append, port=server.port, grace=0.2), hang
    reports.attend(KEY, ["uid"], [POD], [])
    await until(lambda: reports.unreachable("uid"))
    told = reports.unreachable("uid")
    assert "NetworkPolicy" in told
    tries = server.asked
    await until(lambda: server.asked > tries + 1)
    assert (changes, reports.unreachable("uid")) == ([KEY], told), "tried again, and said once"
    await reports.stop()


async def test_silence_and_a_closed_port_are_told_alike(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails now so, now so must not cost a write of the status each time."""

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise AssertionError

    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport
        request.transport.close()
        return web.Response()

    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.1)
    changes: list[tuple[str, str]] = []
    reports, server.instead = Reports(changes.append, port=server.port, grace=0.0), hang
    reports.attend(KEY, ["uid"], [POD], [])
    await until(lambda: reports.unreachable("uid"))
    server.instead, tries = cut, server.asked
    await until(lambda: server.asked > tries + 1)
    assert changes == [KEY]
    await reports.stop()


async def test_a_plan_does_not_wait_for_a_slot_of_the_polls(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLLS", 1)
    monkeypatch.setattr(module, "CROWDED_POLL_SECONDS", 20.0)
    reports = Reports(lambda _: None, port=server.port)
    reports.attend(KEY, ["other"], [("other", "127.0.0.1")], [])
    await until(lambda: reports.report("other"))
    waiting = ("team", "waiting")
    reports.attend(waiting, ["uid"], [POD], [])
    await asyncio.sleep(0)
    reports.attend(waiting, ["uid"], [POD], [push()])
    await until(lambda: server.taken)
    await until(lambda: (known := reports.report("uid")) and known.generation == 2)
    await reports.stop()
